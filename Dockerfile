# srcli in a container. TORCH is what pip is to install; empty takes PyTorch for the CPU.
#   docker build -t srcli .
#   docker build -t srcli:cuda --build-arg TORCH=torch==2.13.0 .
#   docker run --rm -v "$PWD:/pictures" srcli upscale in.jpg --scale 4
#   docker run --rm --gpus all -v "$PWD:/pictures" -v srcli-weights:/weights srcli:cuda models pull pasd
FROM python:3.12-slim

ARG TORCH=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore UV_NO_CACHE=1 \
    HF_HOME=/weights XDG_CACHE_HOME=/weights/cache XDG_CONFIG_HOME=/weights/config

WORKDIR /srcli
COPY scripts/install-torch scripts/install-torch
RUN scripts/install-torch python "$TORCH"

COPY pyproject.toml README.md LICENSE NOTICE weights.lock ./
COPY src src
# hadolint ignore=DL3013
RUN pip install ".[heif,formats]" && mkdir -p /weights && chmod 777 /weights

WORKDIR /pictures
ENTRYPOINT ["srcli"]
CMD ["--help"]
