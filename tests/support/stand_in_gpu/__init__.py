"""A GPU for torch that is the CPU, so that what streamtrain does on a GPU runs where there is none.

Tensors say that they are on cuda:0, refuse to mix with those of the CPU as CUDA's do, and have
their values on the CPU; kernels run in their GPU branch, thread by thread. Copies to the CPU that
do not wait arrive only when somebody waits for them. So it proves that a command runs on a GPU to
its end, with the values of the CPU; it says nothing about speed, memory or the order of streams.

    PYTHONPATH=tests python -m support.stand_in_gpu train configs/quickstart.yaml
    PYTHONPATH=tests python -m pytest -p support.stand_in_gpu.plugin -m gpu

Needs a CPU build of torch and a C++ compiler; changes torch for the whole process.
"""
