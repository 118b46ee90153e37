# Image of the training: torch with its CUDA libraries, several GB. Built from the repository's root:
#   docker build -f docker/training.Dockerfile -t endo-clip-training .
#   docker run --rm --network none -v "$PWD/runs:/runs" endo-clip-training run --recipe smoke --out /runs/smoke
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE}
ARG PIP_NO_INDEX PIP_FIND_LINKS
LABEL org.opencontainers.image.title="endo-clip-training" \
    org.opencontainers.image.description="Records to three stages to ONNX bundle. Research use only." \
    org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /src
RUN python3 -m venv /opt/venv
COPY requirements/train.txt requirements.txt
RUN /opt/venv/bin/pip install --no-cache-dir --require-hashes --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY model_store model_store
COPY training training
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && mkdir /runs && chown 10001:10001 /runs
USER 10001:10001
# Archives and runs; caches of the libraries go where a read-only root has room for them.
WORKDIR /runs
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
VOLUME /runs
ENTRYPOINT ["python", "-m", "training"]
CMD ["--help"]
