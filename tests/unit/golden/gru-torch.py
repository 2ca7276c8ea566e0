#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes gru-torch.txt, what test_gru_train.c is held against: PyTorch's own
GRU cell, gradients and Adam on numbers drawn from a fixed seed.
Needs Debian's python3-torch; from the top of the tree:
    tests/unit/golden/gru-torch.py >tests/unit/golden/gru-torch.txt
"""
import torch

INPUTS, HIDDEN, OUTPUTS, STEPS, ROWS, RATE = 5, 16, 4, 4, 3, 0.01

torch.manual_seed(7)
torch.set_num_threads(1)
cell = torch.nn.GRUCell(INPUTS, HIDDEN)
read_state = torch.nn.Linear(HIDDEN, OUTPUTS)
read_inputs = torch.nn.Linear(INPUTS, OUTPUTS, bias=False)


def in_our_order(of):
    """[3 * hidden, n] of PyTorch's is [n][3][hidden] of ours."""
    return torch.cat([t.reshape(-1) for t in (
        of(cell.weight_ih).t(), of(cell.weight_hh).t(),
        of(cell.bias_ih), of(cell.bias_hh), of(read_state.weight).t(),
        of(read_inputs.weight).t(), of(read_state.bias))])


def show(name, tensor):
    flat = tensor.detach().reshape(-1).tolist()
    print(name, len(flat))
    print('\n'.join('%.9g' % v for v in flat))


print('# made by gru-torch.py with PyTorch', torch.__version__)
print('shape', INPUTS, HIDDEN, STEPS, ROWS)
x = torch.randn(STEPS, ROWS, INPUTS)
label = (torch.rand(STEPS, ROWS, OUTPUTS) < 0.4).float()
weight = torch.randint(0, 3, (STEPS, ROWS, OUTPUTS)).float()
h = torch.randn(ROWS, HIDDEN) * 0.5
for name, tensor in (('params', in_our_order(lambda p: p)), ('x', x),
                     ('label', label), ('weight', weight), ('h', h)):
    show(name, tensor)

logits = []
for step in range(STEPS):
    h = cell(x[step], h)
    logits.append(read_state(h) + read_inputs(x[step]))
logits = torch.stack(logits)
loss = (torch.nn.functional.binary_cross_entropy_with_logits(
    logits, label, reduction='none') * weight).sum() / weight.sum()
parameters = [p for m in (cell, read_state, read_inputs)
              for p in m.parameters()]
adam = torch.optim.Adam(parameters, lr=RATE)
loss.backward()
show('logits', logits)
show('state', h)
show('loss', loss)
show('gradient', in_our_order(lambda p: p.grad))
adam.step()
show('updated', in_our_order(lambda p: p))
