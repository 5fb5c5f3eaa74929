# The container image for workers on Dataflow and for the driver: this code, its pinned requirements, and models. The models
# are in the folder MODELS of the build context, and at /models in the image; the recipe must use the paths in the image.
#   docker build --build-arg MODELS=models --tag REGION-docker.pkg.dev/PROJECT/REPOSITORY/teratoken .
FROM apache/beam_python3.11_sdk:2.77.0

WORKDIR /teratoken
COPY pyproject.toml constraints.txt LICENSE README.md ./
# torch is left out: only the trainer needs it, and it is larger than all other packages.
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
      | grep -vE '^(torch|safetensors)' >requirements.txt \
    && pip install --no-cache-dir -c constraints.txt -r requirements.txt 'apache-beam[gcp]==2.77.0'

COPY filters filters
COPY manifests manifests
COPY pipeline pipeline
COPY recipes recipes
COPY samples samples
RUN pip install --no-cache-dir --no-deps -c constraints.txt .

ARG MODELS=recipes
COPY ${MODELS} /models
