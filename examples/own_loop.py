"""Train a network of your own on the stream of samples, in a loop of your own.

A `SampleStream` yields batches for ever and repeats no sample. Where a training stands is one
number, the index of the next sample.
"""

import torch
from torch import nn

from streamtrain import Generator, SampleStream, load_config


def main(steps: int = 200, batch_size: int = 32) -> list[float]:
    # The shipped configuration: Li+16 with its narrow prior, noise of up to 11 uK, 10 x 16 x 16
    # voxels. It has one sky, which is enough to show a loop, and too little for a real training.
    config = load_config(
        "configs/reference.yaml", ["data.train=[configs/reference_0000.h5]", "data.test=[]"]
    )
    generator = Generator(config, "train", threads=2)
    channels = generator.input_shape[0]  # [frequency, dec, ra]: frequencies are channels here
    network = nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, generator.num_outputs),
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)

    stream = SampleStream(generator, batch_size)
    losses = []
    for step, batch in zip(range(steps), stream, strict=False):
        # batch.cube [B, frequency, dec, ra] is the network's input, after all map operators;
        # batch.label [B, 49] is log10 dN, batch.draws[k] what sample k was made with.
        loss = nn.functional.mse_loss(network(batch.cube), batch.label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if step % 20 == 0:
            print(f"step {step}: rms error {losses[-1] ** 0.5:.3f} dex")
    # Keep this beside the weights: `load_state_dict` of a new stream continues from there.
    print("state of the stream:", stream.state_dict())
    stream.close()
    generator.close()
    return losses


if __name__ == "__main__":
    main()
