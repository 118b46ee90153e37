# Image of the service: no torch, no compiler, no pip, no account but a number. Built from the repository's root:
#   docker build -f docker/service.Dockerfile -t endo-clip .
#   docker build -f docker/service.Dockerfile -t endo-clip:hospital --build-arg REQUIREMENTS="dicom postgres" .
#   docker build -f docker/service.Dockerfile -t endo-clip:cuda --build-arg REQUIREMENTS=gpu .
#   docker run --read-only --tmpfs /tmp -p 127.0.0.1:8000:8000 -e ENDOCLIP_ALLOW_NO_KEYS=true endo-clip
# Any Debian with python3.11 and its venv module serves as BASE. The CUDA libraries come as wheels, so the base is the same.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# One or several of service, dicom, postgres and gpu: which of requirements/*.txt. Their pins agree.
ARG REQUIREMENTS=service
# Where wheels come from, if not from the index: a folder inside the build, with PIP_NO_INDEX=1 (docs/operations.md).
ARG PIP_NO_INDEX PIP_FIND_LINKS
WORKDIR /src
RUN python3 -m venv --without-pip /opt/venv && python3 -m venv /opt/pip
# Dependencies first: this layer changes only with the pins.
COPY requirements/service.txt requirements/dicom.txt requirements/postgres.txt requirements/gpu.txt requirements/
RUN for one in ${REQUIREMENTS}; do \
        /opt/pip/bin/pip --python /opt/venv install --no-cache-dir --require-hashes --requirement "requirements/${one}.txt" || exit 1; \
    done
COPY pyproject.toml README.md LICENSE ./
COPY model_store model_store
COPY service service
# The runtime's wheel carries 285 MB of CUDA provider, which the CPU image has no use for.
RUN /opt/pip/bin/pip --python /opt/venv install --no-cache-dir --no-deps --no-build-isolation . \
    && /opt/pip/bin/pip --python /opt/venv uninstall --yes --quiet setuptools \
    && case " ${REQUIREMENTS} " in \
        *" gpu "*) ;; \
        *) find /opt/venv -name 'libonnxruntime_providers_cuda.so' -delete -o -name 'libonnxruntime_providers_tensorrt.so' -delete ;; \
    esac

FROM ${BASE}
LABEL org.opencontainers.image.title="endo-clip" \
    org.opencontainers.image.description="Zero-shot polyp detection and malignancy classification over HTTP. Research use only." \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
# A number and no name: an orchestrator can see that it is not root. Nothing is written, so nothing is owned.
USER 10001:10001
WORKDIR /tmp
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ENDOCLIP_HOST=0.0.0.0 ENDOCLIP_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, ssl, urllib.request as u; tls = os.environ.get('ENDOCLIP_TLS_CERT'); u.urlopen(f\"http{'s' if tls else ''}://127.0.0.1:{os.environ['ENDOCLIP_PORT']}/readyz\", timeout=4, context=ssl._create_unverified_context() if tls else None)"]
CMD ["python", "-m", "service"]
