"""For pytest: `-p support.stand_in_gpu.plugin`."""

from support.stand_in_gpu import core

core.register()

from support.stand_in_gpu import cuda, launches, tensors  # noqa: E402

cuda.install()
tensors.install()
launches.install()
