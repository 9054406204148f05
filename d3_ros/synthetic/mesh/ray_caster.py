"""Ray casting of rendered scenes: colour, exact z-depth and exact normals.

Embree (through embreex, the optional extra `render`) finds the hits; shading is numpy: diffuse
and glossy reflection of area lights with soft shadows, and indirect light dimmed where nearby
surfaces close a point in. Depth and normals come from one ray through each pixel's centre; colour
from four jittered ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d3_ros.errors import D3Error
from d3_ros.geometry.camera import is_distorted, ray_map
from d3_ros.synthetic.mesh.random_textures import SIZE
from d3_ros.synthetic.mesh.scenes import MeshScene, Viewpoint
from d3_ros.synthetic.textures import mip_levels
from d3_ros.types import CameraIntrinsics

SAMPLES = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))  # sub-pixel strata
AMBIENT_REACH_M = 1.2
FAR_M = 65.0  # the largest depth in 16-bit millimetres


@dataclass(frozen=True)
class RenderedFrame:
    """`rgb` (H, W, 3) float32 linear radiance (not yet a photograph); `depth` (H, W) float32
    z-depth in metres, 0 where there is nothing; `normals` (H, W, 3) float32 unit vectors, optical
    frame, facing the camera, 0 where there is nothing; `T_world_camera` (4, 4) optical frame."""

    rgb: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    T_world_camera: np.ndarray


@dataclass(frozen=True)
class _Hits:
    index: np.ndarray  # into the rays
    point: np.ndarray
    normal: np.ndarray
    uv: np.ndarray
    material: np.ndarray
    distance: np.ndarray


class RayCaster:
    """Casts rays into one scene."""

    def __init__(self, scene: MeshScene) -> None:
        """Build the acceleration structure.

        Raises:
            D3Error: embreex is not installed.
        """
        try:
            from embreex.mesh_construction import TriangleMesh
            from embreex.rtcore_scene import EmbreeScene
        except ImportError as error:
            raise D3Error("rendering needs the 'embreex' package: pip install embreex") from error
        self.scene = scene
        mesh = scene.mesh
        self._embree = EmbreeScene()
        TriangleMesh(self._embree, np.ascontiguousarray(mesh.vertices, dtype=np.float32))
        self._normals = mesh.normals.astype(np.float32)
        self._uv = mesh.uv.astype(np.float32)
        self._atlas, self._level_start = _mip_pyramid(np.stack(scene.workshop.textures))
        self._tile_m = np.array(scene.workshop.tile_m, dtype=np.float32)
        self._gloss = np.array(scene.workshop.gloss, dtype=np.float32)
        self._glow = np.array(scene.workshop.glow, dtype=np.float32)

    def _cast(self, origins: np.ndarray, directions: np.ndarray) -> _Hits:
        blind = np.isnan(directions).any(axis=1)
        if blind.any():  # no ray there: one that leaves from outside of everything
            directions = np.where(blind[:, None], np.array((0, 0, 1), np.float32), directions)
            origins = np.where(blind[:, None], np.float32(1e6), origins)
        hit = self._embree.run(origins, directions, output=True)
        index = np.flatnonzero(hit["primID"] >= 0)
        triangle, distance = hit["primID"][index], hit["tfar"][index]
        u, v = hit["u"][index, None], hit["v"][index, None]
        corners = self._normals[triangle]
        normal = corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v
        normal = _unit(normal)
        d = directions[index]
        normal *= np.where(np.einsum("ij,ij->i", normal, d) > 0, -1.0, 1.0)[:, None]
        corners = self._uv[triangle]
        uv = corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v
        point = origins[index] + d * distance[:, None]
        material = self.scene.mesh.material[triangle]
        return _Hits(index, point, normal.astype(np.float32), uv, material, distance)

    def clear(self, view: Viewpoint, camera: CameraIntrinsics, *, given: bool) -> bool:
        """Whether a camera at `view` is neither inside an object nor right in front of one.

        `given`: the user gave the camera or its mounting. Then surfaces may be as near as half the
        camera's height, so that a low camera may see the floor, and distances are measured along
        the rays, so that a wide lens is not refused. For a random camera they are z-depth; another
        rule would change the frames of every seed.
        """
        small = camera.resized(16, 12)
        pose = look_at(view)
        rays = pixel_rays(small) @ pose[:3, :3].T.astype(np.float32)
        origins = np.broadcast_to(pose[:3, 3].astype(np.float32), rays.shape)
        hits = self._cast(np.ascontiguousarray(origins), rays)
        if len(hits.index) < 0.5 * np.count_nonzero(np.isfinite(rays[:, 0])):
            return False
        free, distance = self.scene.free_m, hits.distance
        if given:
            free = min(free, 0.5 * float(view.eye[2] - self.scene.floor_below(view.eye)))
            distance = distance * np.linalg.norm(rays[hits.index], axis=1)
        near = np.quantile(distance, 0.05)
        spread = np.quantile(distance, 0.9) / max(float(np.quantile(distance, 0.1)), 1e-3)
        return bool(near > free and spread > 1.15)

    def ranges(self, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """(N,) float32 metres to the first surface along (3, N) unit vectors; infinite: none."""
        rays = np.ascontiguousarray(directions.T, np.float32)
        starts = np.ascontiguousarray(np.broadcast_to(origin.astype(np.float32), rays.shape))
        hits = self._cast(starts, rays)
        distance = np.full(len(rays), np.inf, np.float32)
        distance[hits.index] = hits.distance
        return distance

    def render(
        self, view: Viewpoint, camera: CameraIntrinsics, rng: np.random.Generator
    ) -> RenderedFrame:
        """Render one frame; `rng` drives the jitter of light and sub-pixel samples."""
        pose = look_at(view)
        rotation = pose[:3, :3].astype(np.float32)
        shape = (camera.height, camera.width)
        centre = pixel_rays(camera)  # z = 1, so that distance along the ray is z-depth
        origins = np.ascontiguousarray(
            np.broadcast_to(pose[:3, 3].astype(np.float32), centre.shape)
        )
        hits = self._cast(origins, centre @ rotation.T)
        depth = np.zeros(len(centre), dtype=np.float32)
        normals = np.zeros((len(centre), 3), dtype=np.float32)
        depth[hits.index] = hits.distance
        normals[hits.index] = hits.normal @ rotation
        beyond = depth > FAR_M
        depth[beyond], normals[beyond] = 0.0, 0.0

        shade, bright, glow = (np.zeros((len(centre), 3), dtype=np.float32) for _ in range(3))
        arriving = np.zeros((len(centre), 4), dtype=np.float32)  # light's colour, and openness
        share = np.float32(1 / len(SAMPLES))
        for number, offset in enumerate(SAMPLES):
            jitter = np.array(offset, dtype=np.float32) + rng.uniform(-0.2, 0.2, 2) - 0.5
            rays = pixel_rays(camera, jitter) @ rotation.T
            sample = self._cast(origins, rays)
            albedo = self._albedo(sample, sample.distance / camera.fx / 2)
            light, highlight = self._direct(sample, -rays[sample.index], number, rng)
            shade[sample.index] += albedo * share
            bright[sample.index] += highlight * share
            arriving[sample.index, :3] += light * share
            arriving[sample.index, 3] += self._openness(sample, rng) * share
            glow[sample.index] += albedo * (self._glow[sample.material][:, None] * share)
            missed = np.ones(len(centre), dtype=bool)
            missed[sample.index] = False
            missed[np.isnan(rays).any(axis=1)] = False
            glow[missed] += self.scene.sky_colour(rays[missed]) * share
        arriving = _smooth_within_surfaces(
            arriving.reshape(*shape, 4), depth.reshape(shape), normals.reshape(*shape, 3)
        ).reshape(-1, 4)
        level = max(float(arriving[:, :3].mean()), self.scene.least_light)
        indirect = arriving[:, 3:] * (self.scene.ambient * level)
        rgb = shade * (arriving[:, :3] + indirect) + bright + glow * level
        return RenderedFrame(
            rgb.reshape(*shape, 3), depth.reshape(shape), normals.reshape(*shape, 3), pose
        )

    def _albedo(self, hits: _Hits, footprint_m: np.ndarray) -> np.ndarray:
        tile = self._tile_m[hits.material]
        texels = np.maximum(footprint_m / tile * SIZE, 1.0)
        level = np.minimum(np.log2(texels), len(self._level_start) - 1).astype(np.int64)
        side = SIZE >> level
        cell = np.floor((hits.uv / tile[:, None] % 1.0) * side[:, None]).astype(np.int64)
        cell = np.minimum(cell, side[:, None] - 1)
        place = self._level_start[level] + (hits.material * side + cell[:, 1]) * side + cell[:, 0]
        return self._atlas[place].astype(np.float32) / 255.0

    def _direct(
        self,
        hits: _Hits,
        to_eye: np.ndarray,
        number: int,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Direct light at N hits, (N, 3), and its specular highlight, (N, 3), with soft shadows.

        Each of a pixel's four samples uses one light, chosen by its `number`.
        """
        lights = self.scene.lights
        light = lights[number % len(lights)]
        scatter = rng.normal(0, 1, hits.point.shape).astype(np.float32)
        scatter[:, 2] *= 0.1  # flat, so that a lamp under the ceiling does not reach through it
        scatter = _unit(scatter) * np.float32(light.radius)
        to_light = light.centre.astype(np.float32) + scatter - hits.point
        distance = np.sqrt(np.einsum("ij,ij->i", to_light, to_light))
        to_light /= distance[:, None]
        cosine = np.einsum("ij,ij->i", to_light, hits.normal)
        lit = np.flatnonzero(cosine > 0)
        start = (hits.point + hits.normal * 2e-3)[lit]
        blocked = self._embree.run(
            start, to_light[lit], (distance[lit] * 0.98).astype(np.float32), query="OCCLUDED"
        )
        arriving = np.zeros(len(hits.point), dtype=np.float32)
        open_rays = lit[blocked < 0]
        arriving[open_rays] = cosine[open_rays] / np.maximum(distance[open_rays] ** 2, 0.05)
        half = _unit(to_light + _unit(to_eye))
        highlight = np.clip(np.einsum("ij,ij->i", half, hits.normal), 0, 1) ** 32
        light_in = arriving[:, None] * (light.power * len(lights)).astype(np.float32)
        return light_in, light_in * (self._gloss[hits.material] * highlight * 3)[:, None]

    def _openness(self, hits: _Hits, rng: np.random.Generator) -> np.ndarray:
        """1 where a random direction over the surface is free for `AMBIENT_REACH_M`, else less."""
        direction = rng.normal(0, 1, hits.point.shape).astype(np.float32)
        direction = _unit(_unit(direction) + hits.normal * np.float32(1.001))  # cosine-weighted
        reach = np.full(len(direction), AMBIENT_REACH_M, dtype=np.float32)
        start = hits.point + hits.normal * 2e-3
        blocked = self._embree.run(start, direction, reach, query="OCCLUDED")
        return np.where(blocked < 0, 1.0, 0.25).astype(np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return vectors / np.maximum(length, 1e-9)[:, None]


def look_at(view: Viewpoint) -> np.ndarray:
    """T_world_camera (4, 4): optical frame (x right, y down, z forward) looking at the target."""
    forward = view.target - view.eye
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(view.roll), np.sin(view.roll)
    pose = np.eye(4)
    pose[:3, 0] = c * right + s * down
    pose[:3, 1] = -s * right + c * down
    pose[:3, 2] = forward
    pose[:3, 3] = view.eye
    return pose


def pixel_rays(camera: CameraIntrinsics, offset: np.ndarray | None = None) -> np.ndarray:
    """(H * W, 3) float32 rays with z = 1, optical frame; `offset` (u, v) from the pixel centres.

    Where the lens has no ray for a pixel it is NaN.
    """
    du, dv = (0.0, 0.0) if offset is None else offset
    if is_distorted(camera):
        rays = ray_map(camera)
        if offset is not None:  # a lens is smooth: within a pixel a straight line will do
            along_v, along_u = np.gradient(rays, axis=(0, 1))
            rays = rays + np.float32(du) * along_u + np.float32(dv) * along_v
        return rays.reshape(-1, 3).astype(np.float32)
    u, v = np.meshgrid(np.arange(camera.width) + du, np.arange(camera.height) + dv)
    x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
    return np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3).astype(np.float32)


def _mip_pyramid(textures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every texture (M, SIZE, SIZE, 3) at every halved size, as one (P, 3) uint8 table.

    Also the row where each level starts: texel (m, row, column) of level l, whose side is
    SIZE / 2^l, is at start[l] + (m side + row) side + column.
    """
    levels = [(level * 255).astype(np.uint8).reshape(-1, 3) for level in mip_levels(textures)]
    return np.concatenate(levels), np.cumsum([0, *(len(level) for level in levels[:-1])])


def _smooth_within_surfaces(
    values: np.ndarray, depth: np.ndarray, normals: np.ndarray, radius: int = 2
) -> np.ndarray:
    """Average (H, W, K) sampled light over neighbours on the same surface: same depth and normal.

    Takes the sampling noise out of soft shadows and keeps the edges between surfaces.
    """
    height, width = depth.shape
    pad = ((radius, radius), (radius, radius))
    v, n = (np.pad(x, (*pad, (0, 0)), mode="edge") for x in (values, normals))
    z = np.pad(depth, pad, mode="edge")
    total, weight = np.zeros_like(values), np.zeros_like(depth)
    for dy in range(2 * radius + 1):
        for dx in range(2 * radius + 1):
            window = (slice(dy, dy + height), slice(dx, dx + width))
            near = np.abs(z[window] - depth) < 0.03 * depth + 1e-3
            near &= np.einsum("ijk,ijk->ij", n[window], normals) > 0.9
            near |= dy == dx == radius  # itself, also where there is no surface
            total += near[..., None] * v[window]
            weight += near
    return total / weight[..., None]
