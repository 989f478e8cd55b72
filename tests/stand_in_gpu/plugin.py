"""For pytest: `-p stand_in_gpu.plugin`."""

from stand_in_gpu import core

core.register()

from stand_in_gpu import cuda, launches, tensors  # noqa: E402

cuda.install()
tensors.install()
launches.install()
