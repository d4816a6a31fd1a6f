"""The kernels of `latentedit.runtime.fused`, which says what they compute; imported where Triton is
at hand."""

# mypy: ignore-errors

import triton
import triton.language as tl


# Numbers whose kind (1, a multiple of 16) would only make for more kernels to compile; that of
# "depth" is worth it.
@triton.jit(
    do_not_specialize=["height", "width", "out_height", "out_width", "top", "left", "noise_step"],
)
def fir(
    x,
    taps,
    y,
    factors,
    bias,
    noise,
    height,
    width,
    depth,
    out_height,
    out_width,
    top,
    left,
    gain,
    slope,
    noise_step,
    UP: tl.constexpr,
    DOWN: tl.constexpr,
    TAPS: tl.constexpr,
    FLIP: tl.constexpr,
    FACTORS: tl.constexpr,
    BIAS: tl.constexpr,
    NOISE: tl.constexpr,
    ACTIVATED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A part of one row of the output; ``depth`` numbers of a position lie side by side."""
    row = tl.program_id(0)
    plane = row // out_height
    across_y = row - plane * out_height
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < out_width * depth
    across_x = place // depth
    channel = place - across_x * depth
    total = tl.zeros([BLOCK], dtype=tl.float32)

    for i in tl.static_range(TAPS):
        up_y = across_y * DOWN + i - top
        from_y = up_y // UP
        if (up_y >= 0) & (from_y * UP == up_y) & (from_y < height):
            tap_y = tl.load(taps + (TAPS - 1 - i if FLIP else i))
            for j in tl.static_range(TAPS):
                up_x = across_x * DOWN + j - left
                from_x = up_x // UP
                good = inside & (up_x >= 0) & (from_x * UP == up_x) & (from_x < width)
                at = ((plane * height + from_y) * width + from_x) * depth + channel
                tap = tap_y * tl.load(taps + (TAPS - 1 - j if FLIP else j))
                total += tap * tl.load(x + at, mask=good, other=0.0).to(tl.float32)

    total = total * gain
    if FACTORS:
        total = total * tl.load(factors + plane * depth + channel, mask=inside, other=0.0).to(
            tl.float32
        )

    if BIAS:
        total += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)

    if NOISE:
        at_noise = plane * noise_step + across_y * out_width + across_x
        total += tl.load(noise + at_noise, mask=inside, other=0.0).to(tl.float32)

    if ACTIVATED:
        total = tl.where(total > 0, total, total * slope)

    tl.store(y + (row * out_width) * depth + place, total.to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["positions", "each", "noise_step", "sums_step"])
def layer_gradients(
    gradient,
    y,
    factors,
    noise,
    scaled,
    sums,
    over_channels,
    positions,
    depth,
    each,
    noise_step,
    sums_step,
    slope,
    FACTORS: tl.constexpr,
    NOISE: tl.constexpr,
    TO_NOISE: tl.constexpr,
    ACTIVATED: tl.constexpr,
    PIXELS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """``each`` positions of one picture, all channels."""
    picture = tl.program_id(0)
    part = tl.program_id(1)
    channel = tl.arange(0, WIDE)
    real = channel < depth
    before = tl.zeros([WIDE], dtype=tl.float32)
    product = tl.zeros([WIDE], dtype=tl.float32)
    noisy = tl.zeros([WIDE], dtype=tl.float32)
    if FACTORS:
        factor = tl.load(factors + picture * depth + channel, mask=real, other=0.0).to(tl.float32)

    end = tl.minimum(part * each + each, positions)
    for start in range(part * each, end, PIXELS):
        place = start + tl.arange(0, PIXELS)
        there = place < end
        good = there[:, None] & real[None, :]
        at = (picture * positions + place)[:, None] * depth + channel[None, :]
        g = tl.load(gradient + at, mask=good, other=0.0).to(tl.float32)
        out = tl.load(y + at, mask=good, other=0.0).to(tl.float32)
        product += tl.sum(g * out, axis=0)
        if ACTIVATED:
            g = tl.where(out > 0, g, g * slope)
        before += tl.sum(g, axis=0)
        if NOISE:
            map_ = tl.load(noise + picture * noise_step + place, mask=there, other=0.0).to(
                tl.float32
            )
            noisy += tl.sum(g * map_[:, None], axis=0)

        if TO_NOISE:
            tl.store(over_channels + picture * positions + place, tl.sum(g, axis=1), mask=there)
        if FACTORS:
            g = g * factor[None, :]
        tl.store(scaled + at, g.to(scaled.dtype.element_ty), mask=good)

    parts = tl.num_programs(1)
    to = sums + (picture * parts + part) * depth + channel
    tl.store(to, before, mask=real)
    tl.store(to + sums_step, product, mask=real)
    tl.store(to + 2 * sums_step, noisy, mask=real)
