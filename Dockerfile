# docker build -t gpt2 .                                                     for CPUs
# docker build -t gpt2 --build-arg REQUIREMENTS=requirements-gpu.txt .       for NVIDIA GPUs; then docker run --gpus all
# docker run -it --rm -v "$PWD:/work" gpt2 python3 /gpt2/main.py --model mine.json
FROM python:3.11-slim
ARG REQUIREMENTS=requirements.txt
ENV VENV=/opt/venv PATH=/opt/venv/bin:$PATH
WORKDIR /gpt2
COPY requirements.txt requirements-gpu.txt ./
COPY tools/setup.sh tools/
RUN sh tools/setup.sh "$REQUIREMENTS"
COPY . .
WORKDIR /work
CMD ["python3", "/gpt2/main.py", "--help"]
