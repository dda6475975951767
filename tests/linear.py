"""A linear-Gaussian hierarchy with quadratic energies, where every density and expectation is exact."""

import torch
from torch import Tensor, nn

from jlebm.backbones.protocol import NoEncoder
from jlebm.distributions import Normal
from jlebm.energies import JointEnergy
from jlebm.latents import Latents
from jlebm.model import JointModel


class QuadraticNetwork(nn.Module):
    """f(z) = shift . z - curvature |z|^2 / 2, the paper's sign: higher is more likely."""

    def __init__(self, dimensions: int, curvature: float, generator: torch.Generator):
        super().__init__()
        self.curvature = nn.Parameter(torch.tensor(curvature, dtype=torch.float64))
        self.shift = nn.Parameter(torch.randn(dimensions, generator=generator, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        """Return f of shape (batch, 1)."""
        return ((z * self.shift).sum(1) - 0.5 * self.curvature * z.square().sum(1))[:, None]


class LinearBackbone(nn.Module):
    """z2 ~ N(0, I), z1 ~ N(W z2 + b, diag sigma^2), x ~ N(A z1, 0.5^2 I) as an image of one row."""

    def __init__(self, generator: torch.Generator):
        super().__init__()

        def draw(*shape: int) -> nn.Parameter:
            return nn.Parameter(0.5 * torch.randn(*shape, generator=generator, dtype=torch.float64))

        self.weight, self.bias, self.log_sigma = draw(3, 2), draw(3), draw(3)
        self.loading = draw(4, 3)

    latent_shapes = ((2,), (3,))

    def conditional(self, above: Tensor) -> Normal:
        """Return p(z1|z2)."""
        return Normal(above @ self.weight.T + self.bias, self.log_sigma.exp())

    def prior_log_prob(self, z: Latents) -> Tensor:
        """Return log p0(z)."""
        top = Normal.constant_sigma(torch.zeros_like(z[0]), 1.0)
        return top.log_prob(z[0]) + self.conditional(z[0]).log_prob(z[1])

    def push(self, noise: Latents, temperature: float = 1.0) -> Latents:
        """Return z = T(eps)."""
        return self.push_below((), noise, temperature)

    def push_below(self, given: Latents, noise: Latents, temperature: float = 1.0) -> Latents:
        """Return all layers, those given from the top."""
        z = list(given)
        for eps in noise:
            z.append(self.conditional(z[0]).sample(eps, temperature) if z else temperature * eps)
        return tuple(z)

    def decode(self, z: Latents) -> Normal:
        """Return p(x|z)."""
        return Normal.constant_sigma((z[1] @ self.loading.T)[:, None, None, :], 0.5)

    def posterior(self, x: Tensor, noise: object) -> None:
        """There is none."""
        raise NoEncoder("exact posteriors need no encoder")


def linear_model(curvatures: tuple[float, float] = (0.7, 0.4)) -> JointModel:
    """Return the model with fixed random parameters, in float64."""
    generator = torch.Generator().manual_seed(7)
    networks = [QuadraticNetwork(d, c, generator) for d, c in zip((2, 3), curvatures, strict=True)]
    return JointModel(LinearBackbone(generator), JointEnergy(networks))


class Quadratic:
    """log g(z) = constant + linear . z - z' precision z / 2 for latents laid side by side; exact by autograd."""

    def __init__(self, log_density):
        origin = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        self.constant = log_density(origin)
        (self.linear,) = torch.autograd.grad(self.constant, origin, create_graph=True)
        self.precision = -torch.autograd.functional.hessian(log_density, origin, create_graph=True)

    def log_integral(self) -> Tensor:
        """Return log of the integral of g, differentiable in whatever g depends on."""
        mean = torch.linalg.solve(self.precision, self.linear)
        dimensions = torch.tensor(2 * torch.pi, dtype=torch.float64).log() * len(self.linear)
        return self.constant + 0.5 * (self.linear @ mean + dimensions - torch.logdet(self.precision))

    def cubature(self) -> Latents:
        """Return 2 D points whose plain average is the exact expectation of every quadratic function under g / Z."""
        mean = torch.linalg.solve(self.precision, self.linear)
        root = torch.linalg.cholesky(torch.linalg.inv(self.precision)) * len(mean) ** 0.5
        points = torch.cat([mean + root.T, mean - root.T]).detach()
        return points[:, :2], points[:, 2:]


def split(z: Tensor) -> Latents:
    """Give one point of the joined latents as a batch of one."""
    return z[None, :2], z[None, 2:]


class WideningBackbone(LinearBackbone):
    """The same with log sigma linear in z2: T is no longer linear, and its log-Jacobian is.

    In whitened noise the released drift, which lacks the log-Jacobian, then climbs the density of a Gaussian that is
    shifted by minus the sum of the slopes; the exact one leaves the noise below z2 as it is.
    """

    def __init__(self, generator: torch.Generator):
        super().__init__(generator)
        self.slope = nn.Parameter(torch.tensor([[0.5, -0.2], [0.3, 0.4], [0.2, 0.1]], dtype=torch.float64))

    def conditional(self, above: Tensor) -> Normal:
        """Return p(z1|z2)."""
        return Normal(above @ self.weight.T + self.bias, (self.log_sigma + above @ self.slope.T).exp())

    def whitened(self, z: Latents) -> Tensor:
        """Return the noise that `push` makes these latents from, all layers side by side."""
        below = self.conditional(z[0])
        return torch.cat([z[0], (z[1] - below.mean) / below.sigma], dim=1)


def widening_model(curvature: float, shift: tuple[float, float]) -> JointModel:
    """Return the model with an energy on z2 alone, curvature |z2|^2 / 2 - shift . z2."""
    generator = torch.Generator().manual_seed(7)
    networks = [QuadraticNetwork(d, c, generator) for d, c in ((2, curvature), (3, 0.0))]
    with torch.no_grad():
        networks[0].shift.copy_(torch.tensor(shift, dtype=torch.float64))
        networks[1].shift.zero_()
    return JointModel(WideningBackbone(generator), JointEnergy(networks))
