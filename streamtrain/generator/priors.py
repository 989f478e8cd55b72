"""The former place of `streamtrain.luminosity.priors`, from which models of users import."""

from streamtrain.luminosity.priors import *  # noqa: F403
