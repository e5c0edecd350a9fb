# All of our processes: the command says which. The first stage installs, the second holds no tools to build with.
FROM python:3.11-slim-bookworm AS install
COPY requirements/services.lock /services.lock
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --no-compile --require-hashes -r /services.lock \
 && /venv/bin/pip uninstall --quiet --yes pip

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home tidings
COPY --from=install /venv /venv
WORKDIR /app
COPY . /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TIDINGS_LOG_FORMAT=json
USER tidings
CMD ["python", "-m", "tidings", "--help"]
