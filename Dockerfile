# The light runtime, without torch: its packages take 172 MB beside those of Python's image.
#   docker build -t scgan .
#   docker run --rm -v "$PWD:/work" scgan sample --n 1000 --out rows.csv
FROM python:3.12-slim AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
COPY constraints.txt /wheels/
COPY --from=build /wheels/*.whl /wheels/
RUN pip install --no-cache-dir -c /wheels/constraints.txt "$(ls /wheels/*.whl)[cpu]" && rm -r /wheels
RUN useradd --uid 10001 --create-home scgan
USER 10001
WORKDIR /work
ENTRYPOINT ["scgan"]
CMD ["--help"]
