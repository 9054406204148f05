# syntax=docker/dockerfile:1
# The node on ROS 2 Jazzy, with the bundled model, for a CPU.
#
#   docker build -t d3_ros .
#   docker run --rm --net=host --ipc=host d3_ros image:=/camera/image_raw sensor_points:=/points
#   docker run --rm --net=host --ipc=host d3_ros bash         # any other command
#
# --net=host and --ipc=host: DDS finds the other nodes, and shares memory with them. Without
# --ipc=host give it room with --shm-size=256m.
# For PyTorch (GPU, d3_sd21): --build-arg WITH_TORCH=1, and run it with --gpus all.
#
# The maintainers cannot build images where they develop: hadolint has checked this file and
# test/test_ci_files.py tests its paths, but no image of it has been run by them.
ARG ROS_DISTRO=jazzy
FROM ros:${ROS_DISTRO}-ros-base

ARG WITH_TORCH=0
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /ws

# First what changes rarely: the packages. Their versions are those of the distribution.
COPY package.xml src/d3_ros/package.xml
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv python3-colcon-common-extensions \
    && rosdep update --rosdistro "${ROS_DISTRO}" \
    && rosdep install --from-paths src --ignore-src --dependency-types=exec -y \
    && rm -rf /var/lib/apt/lists/*
COPY scripts/requirements src/d3_ros/scripts/requirements
# The distribution's NumPy stays, or a newer patch release of it: its cv_bridge was compiled against it.
RUN python3 -m venv --system-site-packages /venv \
    && python3 -c 'import numpy; print(f"numpy~={numpy.__version__}")' > /tmp/numpy.txt \
    && /venv/bin/pip install --no-cache-dir -c /tmp/numpy.txt \
        -r src/d3_ros/scripts/requirements/core.txt \
    && if [ "${WITH_TORCH}" = 1 ]; then /venv/bin/pip install --no-cache-dir -c /tmp/numpy.txt \
        -r src/d3_ros/scripts/requirements/torch.txt; fi

COPY . src/d3_ros
# With the environment's Python, whose path colcon writes into the executables.
RUN . "/opt/ros/${ROS_DISTRO}/setup.bash" \
    && /venv/bin/python -m colcon build --packages-select d3_ros

RUN useradd --create-home --uid 10001 robot
USER 10001
WORKDIR /home/robot
# ros2 launch stops its nodes at SIGINT; at SIGTERM it would leave them behind.
STOPSIGNAL SIGINT
ENTRYPOINT ["/ws/src/d3_ros/scripts/container_entry"]
