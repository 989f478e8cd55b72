"""The former place of `streamtrain.priors`, from which models of users import."""

from streamtrain.priors import *  # noqa: F403
