"""A point cloud to turn with the mouse, as a part of an HTML page that needs no other file."""

from __future__ import annotations

import base64
import math
from html import escape

import numpy as np

from d3_ros.imaging.cloud_view import on_surface

MOST_POINTS = 60_000
# Bytes of a point: x y z as int16 in units of `data-unit` metres, then r g b.
LAYOUT = np.dtype([("xyz", "<i2", 3), ("rgb", "u1", 3)])

# Draws in software, with a depth buffer: the page also works where the browser has no GPU.
SCRIPT = """
document.querySelectorAll("canvas.cloud").forEach(canvas => {
  const bytes = Uint8Array.from(atob(canvas.dataset.points), c => c.charCodeAt(0));
  const view = new DataView(bytes.buffer), n = bytes.length / 9, unit = +canvas.dataset.unit;
  const xyz = new Float32Array(3 * n), colour = new Uint32Array(n), spacing = new Float32Array(n);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < 3; k++) xyz[3 * i + k] = view.getInt16(9 * i + 2 * k, true) * unit;
    colour[i] = 255 << 24 | bytes[9 * i + 8] << 16 | bytes[9 * i + 7] << 8 | bytes[9 * i + 6];
    spacing[i] = xyz[3 * i + 2] * +canvas.dataset.spacing;
  }
  const middle = canvas.dataset.middle.split(" ").map(Number), w = canvas.width, h = canvas.height;
  const context = canvas.getContext("2d"), image = context.createImageData(w, h);
  const pixels = new Uint32Array(image.data.buffer), nearest = new Float32Array(w * h);
  let yaw, pitch, zoom, due = false;
  const reset = () => { yaw = -0.3; pitch = 0.22; zoom = 1; };
  function draw() {
    due = false;
    pixels.fill(0xff201a18); nearest.fill(Infinity);
    const sy = Math.sin(yaw), cy = Math.cos(yaw), sp = Math.sin(pitch), cp = Math.cos(pitch);
    const distance = middle[2] / zoom, focal = 1.05 * h;
    for (let i = 0; i < n; i++) {
      const [x, y, z] = [0, 1, 2].map(k => xyz[3 * i + k] - middle[k]);
      const a = cy * x + sy * z, b = cy * z - sy * x, c = cp * y + sp * b;
      const d = cp * b - sp * y + distance;
      if (d < 0.05 * distance) continue;
      const u = w / 2 + focal * a / d, v = h / 2 + focal * c / d;
      const side = Math.min(12, Math.max(1, Math.ceil(1.3 * focal * spacing[i] / d)));
      const u0 = Math.round(u - side / 2), v0 = Math.round(v - side / 2);
      for (let q = Math.max(v0, 0); q < Math.min(v0 + side, h); q++)
        for (let p = Math.max(u0, 0); p < Math.min(u0 + side, w); p++) {
          const at = q * w + p;
          if (d < nearest[at]) { nearest[at] = d; pixels[at] = colour[i]; }
        }
    }
    context.putImageData(image, 0, 0);
  }
  const show = () => { if (!due) { due = true; requestAnimationFrame(draw); } };
  const turn = (x, y) => { yaw -= x; pitch = Math.max(-1.5, Math.min(1.5, pitch + y)); show(); };
  canvas.addEventListener("pointerdown", e => canvas.setPointerCapture(e.pointerId));
  canvas.addEventListener("pointermove", e => {
    if (e.buttons) turn(e.movementX / 200, e.movementY / 200);
  });
  canvas.addEventListener("wheel", e => {
    e.preventDefault();
    zoom = Math.max(0.3, Math.min(8, zoom * Math.exp(-e.deltaY / 600))); show();
  }, {passive: false});
  canvas.addEventListener("dblclick", () => { reset(); show(); });
  canvas.addEventListener("keydown", e => {
    const step = {ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1],
      ArrowDown: [0, 0.1]}[e.key];
    if (step) { e.preventDefault(); turn(...step); }
  });
  reset(); draw();
});
"""


def cloud_viewer(xyz: np.ndarray, rgb: np.ndarray, caption: str) -> str:
    """HTML of a cloud to turn (drag, arrow keys), zoom (wheel) and reset (double click).

    Put `SCRIPT` once at the end of the page.

    Args:
        xyz: (H, W, 3) metres, optical frame, NaN invalid.
        rgb: (H, W, 3) uint8.
        caption: text below it.
    """
    known = np.isfinite(xyz).all(axis=2).sum()
    stride = max(1, math.ceil(math.sqrt(known / MOST_POINTS)))
    xyz, rgb = xyz[::stride, ::stride], rgb[::stride, ::stride]
    valid = on_surface(xyz)
    # Distance of neighbours as a share of their depth: the size at which points are drawn.
    with np.errstate(invalid="ignore"):
        steps = np.abs(np.diff(xyz[..., 0], axis=1)) / xyz[:, 1:, 2]
    spacing = float(np.nanmedian(steps)) if np.isfinite(steps).any() else 0.005
    points = xyz[valid] if valid.any() else np.zeros((1, 3), np.float32)
    unit = max(float(np.abs(points).max()) / 32767, 1e-6)
    rows = np.empty(len(points), LAYOUT)
    rows["xyz"], rows["rgb"] = np.rint(points / unit), rgb[valid] if valid.any() else 0
    data = base64.b64encode(rows.tobytes()).decode("ascii")
    middle = " ".join(f"{value:.4g}" for value in np.median(points, axis=0))
    return (
        f'<figure><canvas class=cloud tabindex=0 width=1240 height=640 data-points="{data}" '
        f'data-unit="{unit:.9g}" data-spacing="{spacing:.6g}" data-middle="{middle}"></canvas>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
