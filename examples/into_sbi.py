"""Train a density estimator of the package sbi on the stream, and let sbi test it.

The label is the parameters of the luminosity model, as normal scores of their prior: the prior of
each is a Gaussian of mean 0 and width 1. The test maps show the same sky. Needs
`pip install sbi`.
"""

import torch
from sbi.diagnostics import run_sbc
from sbi.diagnostics.sbc import check_uniformity_frequentist
from sbi.inference.posteriors import DirectPosterior
from sbi.neural_nets import posterior_nn
from torch import nn

from streamtrain import Generator, load_config
from streamtrain.evaluate.for_sbi import simulations, stream

SETTINGS = ["data.train=[configs/reference_0000.h5]", "data.test=[]", "label.quantity=parameters"]


def main(steps: int = 600, tests: int = 128) -> torch.Tensor:
    generator = Generator(load_config("configs/reference.yaml", SETTINGS), "train", threads=2)
    embedding = nn.Sequential(  # from a map [frequency, dec, ra] to 16 numbers
        nn.Conv2d(generator.input_shape[0], 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 16),
    )
    theta, x = simulations(generator, tests)  # the first samples of the stream, for the test below
    build = posterior_nn("maf", z_score_theta="none", z_score_x="none", embedding_net=embedding)
    estimator = build(theta, x)

    optimiser = torch.optim.Adam(estimator.parameters(), lr=1e-3)
    batches = stream(generator, 32, start=tests)  # the samples after these, for ever
    for step, (new_theta, new_x) in zip(range(steps), batches, strict=False):
        loss = estimator.loss(new_theta, new_x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 40 == 0:
            print(f"step {step}: -ln p = {loss.item():.2f} nat per map")
    batches.close()

    num = theta.shape[1]
    prior = torch.distributions.MultivariateNormal(torch.zeros(num), torch.eye(num))
    posterior = DirectPosterior(estimator, prior)
    ranks, _ = run_sbc(theta, x, posterior, 300, show_progress_bar=False)
    print("p-values of uniform ranks; of a right posterior one in twenty is below 0.05:")
    print([round(float(p), 2) for p in check_uniformity_frequentist(ranks, 300)])
    generator.close()
    return ranks


if __name__ == "__main__":
    main()
