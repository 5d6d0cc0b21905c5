# The whole course, ready to use without a network, for a room's computers or a server. From the course's folder:
#
#     docker build --file docs/docker/room.Dockerfile --tag mechinterp-course .
#     docker run --rm -it --init --publish 127.0.0.1:8888:8888 --volume mechinterp-work:/course/work mechinterp-course
#
# JupyterLab then prints the address to open. What a learner writes is in the volume.
FROM python:3.13-slim

# The index of PyTorch's CPU builds, if it is given, saves 8 GB: --build-arg PIP_EXTRA_INDEX_URL=…
ARG PIP_EXTRA_INDEX_URL
RUN useradd --create-home learner && mkdir /course && chown learner /course
USER learner
WORKDIR /course
COPY --chown=learner . ./
ENV PIP_NO_CACHE_DIR=1 MI_CACHE=/course/build/models PATH=/course/.venv/bin:$PATH
RUN python bootstrap.py
RUN mi models --fetch smollm2-135m && mi models --fetch efficientnet-lite0 && mi work && mi doctor

EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--LabApp.default_url=/lab/tree/work/00_start_here/00_start_here.ipynb"]
