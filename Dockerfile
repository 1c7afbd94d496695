# One image for ingress, workers, setup and the embedding model; without the other embedded parts, which are for
# machines that have none.
FROM python:3.13-slim AS build
WORKDIR /app
COPY requirements-runtime.lock ./
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-runtime.lock
COPY . .

FROM python:3.13-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin assistant
COPY --from=build /venv /venv
COPY --from=build --chown=root:root /app /app
WORKDIR /app
USER 10001:10001
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENTRYPOINT ["python", "-m", "cli"]
CMD ["--help"]
