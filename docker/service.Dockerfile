# Image of the service: no torch, no compiler, no root. Not run under Docker yet: written against the documentation.
# Build from the repository's root: docker build -f docker/service.Dockerfile -t endo-clip .
FROM python:3.11-slim AS build
WORKDIR /app
# Dependencies first: this layer changes only with the pins.
COPY requirements/service.txt requirements/service.txt
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes --requirement requirements/service.txt
COPY pyproject.toml README.md LICENSE ./
COPY model_store model_store
COPY service service
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home endoclip
COPY --from=build /opt/venv /opt/venv
USER endoclip
WORKDIR /tmp
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ENDOCLIP_HOST=0.0.0.0 ENDOCLIP_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["python", "-m", "service"]
