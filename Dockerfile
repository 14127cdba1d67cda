# Untried: the machine that this was written on has no Docker. It serves a model, by default on port 8000 with a token:
#   docker build -t ulmfit-style .
#   docker run -p 8000:8000 -v "$PWD/runs:/work/runs" ulmfit-style serve name=reviews serve.host=0.0.0.0
# and runs every other command: docker run -v "$PWD:/work" ulmfit-style finetune task=reviews
FROM python:3.12-slim
WORKDIR /package
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY ulmfit_style ulmfit_style
COPY conf conf
COPY hydra_plugins hydra_plugins
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -c constraints.txt \
    ".[serve,export,explain]" && ulmfit-style setup
WORKDIR /work
STOPSIGNAL SIGTERM
ENTRYPOINT ["ulmfit-style"]
CMD ["--help"]
