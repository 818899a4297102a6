# The program alone, as a static binary: `docker build -t qdrop .`, then
# `docker run --rm -v "$PWD:/data" qdrop quantize model.onnx --calib calib/ ...`
FROM rust:1-alpine AS build
# C code of dependencies (blake3, tokenizers' regular expressions) is compiled against musl.
RUN apk add --no-cache build-base
WORKDIR /source
COPY . .
RUN cargo build --release --locked -p qdrop-cli

FROM scratch
COPY --from=build /source/target/release/qdrop /usr/bin/qdrop
COPY --from=build /source/LICENSE-APACHE /source/LICENSE-MIT /usr/share/doc/qdrop/
WORKDIR /data
ENTRYPOINT ["/usr/bin/qdrop"]
