# Built from the hashed lock in one stage, run without compilers and without root in the other.
FROM python:3.11-slim-bookworm AS build
RUN python -m venv /opt/cancelq
WORKDIR /source
COPY requirements.lock ./
RUN /opt/cancelq/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY worker worker
COPY models models
COPY migrations migrations
RUN /opt/cancelq/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/cancelq /opt/cancelq
ENV PATH="/opt/cancelq/bin:$PATH"
# A new volume for the journal takes over its owner.
RUN install -d -m 700 -o 10001 -g 10001 /var/lib/cancelq
# A number, so that a cluster can see that it is not root; it owns nothing else in the image.
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["cancelq"]
CMD ["worker"]
