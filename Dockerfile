# One image for every worker and Flower; compose gives the command.
FROM python:3.13-slim AS build
WORKDIR /app
COPY requirements/runtime.txt requirements/
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements/runtime.txt

FROM python:3.13-slim
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --create-home --uid 10001 postroom
WORKDIR /app
COPY --from=build /venv /venv
COPY postroom postroom
COPY tasks tasks
COPY workers workers
COPY celeryconfig.py ./
USER postroom
CMD ["celery", "-A", "tasks", "worker", "--loglevel=INFO"]
