# One image for every worker and Flower; compose, chart or unit gives the command. Built from the lock with
# hashes, from wheels alone: no compiler. Nothing in it is written to, and none of its commands needs a shell.
ARG PYTHON=3.13
FROM python:${PYTHON}-slim AS build
WORKDIR /app
COPY requirements/runtime.txt requirements/
# Compiled here, since the image is read-only, and by content, so that two builds are alike.
RUN python -m venv --without-pip /venv \
 && python -m pip --python /venv/bin/python install --no-cache-dir --no-compile --only-binary :all: --require-hashes \
      -r requirements/runtime.txt \
 && /venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /venv/lib
COPY postroom postroom
COPY tasks tasks
COPY workers workers
COPY celeryconfig.py ./
RUN /venv/bin/python -m compileall -q --invalidation-mode unchecked-hash .

FROM python:${PYTHON}-slim
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="postroom" \
      org.opencontainers.image.description="Relay, consumer and task workers of the aid-kit, and Flower" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=build /venv /venv
COPY --from=build /app /app
# A number, since Kubernetes' runAsNonRoot cannot look up a name.
USER 10001:10001
STOPSIGNAL SIGTERM
CMD ["celery", "-A", "tasks", "worker", "--loglevel=INFO"]
