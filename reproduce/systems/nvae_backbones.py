"""The hierarchies of two systems of the table: those of the two-stage model of CIFAR-10, preset by preset."""

from reproduce import cifar10

BACKBONES = {name: preset.nvae.model for name, preset in cifar10.RECIPE.two_stage.items() if preset.nvae}
