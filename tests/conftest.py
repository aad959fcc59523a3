"""Settings of the test run."""

import torch

torch.set_num_threads(1)  # as in a run: with small networks a second thread only waits
