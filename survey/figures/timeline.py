"""Draw timeline.svg: the eighteen papers, their ancestors and their heirs, by date, with lines of descent.

Usage: python survey/figures/timeline.py (standard library only). `--list` prints the list of timeline.md instead.
"""

import math
import sys
from pathlib import Path
from xml.sax.saxutils import escape

LANES = (  # a column each: what it is about, and its colour
    ("theory", "#33558f"),
    ("speed", "#8f5410"),
    ("networks, guidance", "#3f6f2f"),
    ("text, control", "#863879"),
    ("latents, codes", "#1f737a"),
    ("discrete data", "#a03636"),
)
ANCESTORS = (  # column, short name, year, second line of the box, key, what it gave
    (0, "Jarzynski's equality", 1997, "1997", "jarzynski1997", "work done along a path, and the ratio of two normalising constants"),
    (1, "Score matching", 2005, "2005, 2011", "hyvarinen2005score,vincent2011dsm", "learning a score without the normalising constant; by denoising"),
    (2, "Reversed diffusions", 1982, "Anderson 1982", "anderson1982reverse", "a diffusion run backwards is a diffusion, and needs the score"),
    (3, "Empirical Bayes", 1956, "Robbins 1956", "robbins1956", "the best denoiser from the density of the noisy data"),
    (4, "VAE", 2013, "2013", "kingma2014vae", "a bound on the likelihood, by an encoder and a decoder"),
)
# column, short name, month of arXiv's number (or of release), venue, number of the notebook (None: not one of the
# eighteen), parents, key, what it gave
WORKS = (
    (0, "DPM", "2015-03", "ICML 2015", 1, "Jarzynski's equality|VAE", "sohldickstein2015dpm", "a chain that destroys, and its learned reversal"),
    (2, "U-Net", "2015-05", "MICCAI 2015", None, "", "ronneberger2015unet", "a network from picture to picture"),
    (2, "Transformer", "2017-06", "NeurIPS 2017", None, "", "vaswani2017attention", "attention alone"),
    (4, "VQ-VAE", "2017-11", "NeurIPS 2017", None, "VAE", "oord2017vqvae", "pictures as a grid of codes"),
    (5, "BERT", "2018-10", "NAACL 2019", None, "Transformer", "devlin2019bert", "guessing masked words"),
    (0, "NCSN", "2019-07", "NeurIPS 2019", 2, "Score matching|Empirical Bayes", "song2019ncsn", "scores at many noise levels, Langevin sampling"),
    (4, "CausalVAE", "2020-04", "CVPR 2021", None, "VAE", "yang2021causalvae", "a causal layer in the code"),
    (0, "DDPM", "2020-06", "NeurIPS 2020", 3, "DPM|NCSN|U-Net", "ho2020ddpm", "predict the noise, with equal weights: pictures of quality"),
    (1, "DDIM", "2020-10", "ICLR 2021", 11, "DDPM", "song2021ddim", "the same network, fewer and deterministic steps"),
    (2, "ViT", "2020-10", "ICLR 2021", None, "Transformer", "dosovitskiy2021vit", "pictures as a sequence of patches"),
    (0, "Score-SDE", "2020-11", "ICLR 2021", 4, "NCSN|DDPM|Reversed diffusions", "song2021scoresde", "one continuous theory: SDE and ODE"),
    (4, "VQGAN", "2020-12", "CVPR 2021", None, "VQ-VAE", "esser2021vqgan", "sharp first stages, by features and a critic"),
    (5, "Multinomial", "2021-02", "NeurIPS 2021", None, "DPM", "hoogeboom2021", "a diffusion of categories"),
    (3, "CLIP", "2021-03", "ICML 2021", 7, "Transformer|ViT", "radford2021clip", "pictures and sentences in one space"),
    (2, "ADM", "2021-05", "NeurIPS 2021", 5, "DDPM|U-Net", "dhariwal2021adm", "a better U-Net, and guidance by a classifier"),
    (0, "VDM", "2021-07", "NeurIPS 2021", None, "DDPM", "kingma2021vdm", "the bound as an integral over log-SNR"),
    (5, "D3PM", "2021-07", "NeurIPS 2021", None, "Multinomial|BERT|DDPM", "austin2021d3pm", "absorbing and other transitions"),
    (4, "DiffAE", "2021-11", "CVPR 2022", None, "DDIM", "preechakul2022diffae", "a code of meaning beside the noise"),
    (3, "GLIDE", "2021-12", "ICML 2022", 8, "ADM|CLIP|CFG", "nichol2022glide", "pictures from sentences, guided without a classifier"),
    (4, "LDM", "2021-12", "CVPR 2022", 9, "VQGAN|ADM", "rombach2022ldm", "diffusion in the latents of an autoencoder"),
    (1, "Progressive distillation", "2022-02", "ICLR 2022", 12, "DDIM", "salimans2022pd", "two steps into one, again and again; v-prediction"),
    (3, "unCLIP", "2022-04", "arXiv", 10, "GLIDE|CLIP", "ramesh2022unclip", "first the meaning, then the picture"),
    (3, "Imagen", "2022-05", "NeurIPS 2022", None, "GLIDE", "saharia2022imagen", "a frozen language model reads the caption"),
    (5, "Continuous time", "2022-05", "NeurIPS 2022", None, "D3PM|Score-SDE", "campbell2022", "discrete diffusion as a jump process"),
    (1, "DPM-Solver", "2022-06", "NeurIPS 2022", None, "Score-SDE|DDIM", "lu2022dpmsolver", "solvers of higher order, in log-SNR"),
    (0, "EDM", "2022-06", "NeurIPS 2022", None, "Score-SDE", "karras2022edm", "the choices separated, and each made well"),
    (2, "CFG", "2021-12", "workshop", 6, "ADM", "ho2022cfg", "guidance by the same network, with and without the condition"),
    (0, "Rectified flow", "2022-09", "ICLR 2023", None, "Score-SDE", "liu2023rf", "straight paths, learned velocities"),
    (0, "Flow matching", "2022-10", "ICLR 2023", None, "Score-SDE", "lipman2023fm", "the regression of velocities, for any path"),
    (5, "Concrete scores", "2022-11", "NeurIPS 2022", None, "Score matching", "meng2022concrete", "ratios as the score of discrete data"),
    (2, "DiT", "2022-12", "ICCV 2023", 14, "ViT|LDM|ADM", "peebles2023dit", "a transformer on patches of latents, scaled by compute"),
    (3, "ControlNet", "2023-02", "ICCV 2023", 15, "LDM", "zhang2023controlnet", "a frozen model and a copy that starts at zero"),
    (1, "Consistency models", "2023-03", "ICML 2023", 13, "Progressive distillation|EDM", "song2023cm", "the endpoint of the path, in one call"),
    (4, "SDXL", "2023-07", "ICLR 2024", None, "LDM", "podell2023sdxl", "latent diffusion, larger"),
    (3, "IP-Adapter", "2023-08", "arXiv", None, "unCLIP|ControlNet", "ye2023ipadapter", "a picture as the prompt"),
    (5, "SEDD", "2023-10", "ICML 2024", 17, "Continuous time|Concrete scores|DiT", "lou2024sedd", "the score entropy: ratios learned, and a bound"),
    (1, "DMD", "2023-11", "CVPR 2024", None, "Progressive distillation", "yin2024dmd", "distillation by matching distributions"),
    (2, "SiT", "2024-01", "ECCV 2024", None, "DiT|Flow matching", "ma2024sit", "the same transformer, straight paths"),
    (4, "SD3", "2024-03", "ICML 2024", 18, "DiT|Rectified flow|SDXL", "esser2024sd3", "straight paths with chosen times; two streams, one attention"),
    (4, "CausalDiffAE", "2024-04", "ECAI 2024", 16, "DiffAE|CausalVAE", "komanduri2024causaldiffae", "counterfactuals: a code that is a causal model"),
    (5, "MDLM, MD4, RADD", "2024-06", "NeurIPS, ICLR", None, "SEDD", "sahoo2024mdlm,shi2024md4,ou2024radd", "masked cross-entropy weighted by 1/t"),
    (4, "FLUX.1", "2024-08", "weights", None, "SD3", "flux2024", "two streams, then one"),
    (2, "REPA", "2024-10", "ICLR 2025", None, "SiT", "yu2025repa", "features aligned with those of a network that recognises"),
    (1, "sCM", "2024-10", "ICLR 2025", None, "Consistency models", "lu2025scm", "consistency in continuous time, at scale"),
    (3, "OminiControl", "2024-11", "ICCV 2025", None, "ControlNet|FLUX.1", "tan2025ominicontrol", "control as further tokens"),
    (5, "LLaDA", "2025-02", "NeurIPS 2025", None, "MDLM, MD4, RADD", "nie2025llada", "masked diffusion with 8 billion parameters"),
    (5, "Block diffusion", "2025-03", "ICLR 2025", None, "MDLM, MD4, RADD", "arriola2025block", "left to right between blocks"),
    (1, "MeanFlow", "2025-05", "NeurIPS 2025", None, "Consistency models|Flow matching", "geng2025meanflow", "the mean velocity over an interval"),
    (3, "Kontext", "2025-06", "arXiv", None, "OminiControl|FLUX.1", "bfl2025kontext", "drawing and editing in one network"),
    (4, "RAE", "2025-10", "ICLR 2026", None, "REPA|LDM", "zheng2026rae", "diffusion of a recogniser's features"),
    (2, "JiT", "2025-11", "CVPR 2026", None, "DiT", "li2026jit", "pixels again: a plain transformer that predicts the picture"),
    (4, "FLUX.2", "2025-11", "weights", None, "FLUX.1|Kontext", "bfl2025flux2", "mostly one stream; one language model; 32 channels"),
    (5, "LLaDA2.0", "2025-12", "arXiv", None, "LLaDA|Block diffusion", "bie2025llada2", "100 billion parameters, converted, in blocks"),
    (1, "pixel MeanFlow", "2026-01", "arXiv", None, "MeanFlow|JiT", "lu2026pmf", "one call, no latents"),
    (4, "Qwen-Image-2.0", "2026-05", "arXiv", None, "SD3", "qwen2026image2", "drawing and editing, f = 16 with 64 channels"),
    (5, "DiffusionGemma", "2026-06", "weights", None, "Block diffusion", "google2026diffusiongemma", "an open model that diffuses text in blocks"),
)
NOTEBOOKS = {
    1: "01_dpm", 2: "02_ncsn", 3: "03_ddpm", 4: "04_score_sde", 5: "05_adm", 6: "06_cfg", 7: "07_clip", 8: "08_glide", 9: "09_ldm",
    10: "10_unclip", 11: "11_ddim", 12: "12_progressive_distillation", 13: "13_consistency_models", 14: "14_dit", 15: "15_controlnet",
    16: "16_causal_diffae", 17: "17_sedd", 18: "18_sd3",
}  # fmt: skip
WIDTH, LEFT, LANE, BOX, HIGH, GAP = 740, 42, 116, 100, 38, 50  # as wide as a column of text on the site
TRACKS = (-5, 5, -9, 9)  # where lines pass boxes of their column: left or right of them, by so many pixels
SHORT = {
    "Progressive distillation": "Distillation", "Consistency models": "Consistency", "Jarzynski's equality": "Jarzynski",
    "Reversed diffusions": "Reversal", "MDLM, MD4, RADD": "MDLM, MD4",
}  # fmt: skip
INK, PAPER, BAND, LINE = "#1d2530", "#ffffff", "#eef1f5", "#8b96a5"


def by_date():
    return sorted(WORKS, key=lambda w: (w[2], w[0]))


def places():
    """Centre of every box, first y of every year, and the height: later is never higher, and boxes never overlap."""
    at = {name: (LEFT + LANE * (lane + 0.5), 96) for lane, name, *_ in ANCESTORS}
    years, lowest, now, before = {}, {}, 188, None
    for lane, name, month, *_ in by_date():
        year, m = int(month[:4]), int(month[5:])
        age = 12 * year + m
        now += 0 if before is None else min(3 * (age - before), 26)
        new_year = year not in years
        if new_year and before is not None:
            now += 16
        now = max(now, lowest.get(lane, 0) + GAP)
        years.setdefault(year, now)
        at[name], lowest[lane], before = (LEFT + LANE * (lane + 0.5), now), now, age
    return at, years, now + 52


def text(x, y, words, size=12, bold=False, fill=INK, anchor="middle"):
    weight = ' font-weight="700"' if bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}"{weight} fill="{fill}" text-anchor="{anchor}">{escape(words)}</text>'


def tracks(at):
    """For each line between boxes of one column that passes others, on which side and how far out it goes."""
    taken, found = {}, {}
    for lane, name, _, _, _, parents, *_ in by_date():
        for parent in filter(None, parents.split("|")):
            (x, y0), (x1, y1) = at[parent], at[name]
            if x != x1 or not any(y0 < y < y1 for n, (xx, y) in at.items() if xx == x):
                continue
            for track in TRACKS:
                others = taken.setdefault((lane, track), [])
                if all(y1 <= start or y0 >= end or who == parent for start, end, who in others):
                    break
            others.append((y0, y1, parent))
            found[parent, name] = track
    return found


def edge(a, b, colour, heavy, track):
    """From the foot of a box to the head of a later one; on a track beside the column; or from side to side."""
    (x0, y0), (x1, y1) = a, b
    top, foot = y1 - HIGH / 2, y0 + HIGH / 2
    if track:
        side = math.copysign(BOX / 2, track)
        rim, out = x0 + side, x0 + side + track
        path = f"M{rim:.0f} {y0 + 9:.0f} Q{out:.0f} {y0 + 9:.0f} {out:.0f} {y0 + 22:.0f} L{out:.0f} {y1 - 20:.0f} Q{out:.0f} {y1 - 8:.0f} {rim:.0f} {y1 - 8:.0f}"
    elif top < foot + 10:
        side = math.copysign(BOX / 2, x1 - x0)
        mid = (x0 + x1) / 2
        path = f"M{x0 + side:.0f} {y0:.0f} C{mid:.0f} {y0:.0f} {mid:.0f} {y1:.0f} {x1 - side:.0f} {y1:.0f}"
    else:
        pull = max(10, min(70, (top - foot) / 2))
        path = f"M{x0:.0f} {foot:.0f} C{x0:.0f} {foot + pull:.0f} {x1:.0f} {top - pull:.0f} {x1:.0f} {top:.0f}"
    width, dim = (2.2, 0.8) if heavy else (1.4, 0.5)
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-opacity="{dim}"/>'


def box(x, y, name, under, colour, solid):
    fill, ink = (colour, "#ffffff") if solid else (PAPER, INK)
    size = 13 if len(name) < 12 else 12 if len(name) < 14 else 11
    return [
        f'<rect x="{x - BOX / 2:.0f}" y="{y - HIGH / 2:.0f}" width="{BOX}" height="{HIGH}" rx="6" fill="{fill}" stroke="{colour}" stroke-width="1.6"/>',
        text(x, y - 2, name, size, True, ink),
        text(x, y + 12, under, 11, False, ink),
    ]


def draw():
    at, years, height = places()
    beside = tracks(at)
    lanes = {name: lane for lane, name, *_ in (*ANCESTORS, *WORKS)}
    ours = {w[1] for w in WORKS if w[4]}
    title = "Timeline of diffusion models, 1956 to 2026, with lines of descent"
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        "font-family=\"Arial, 'Liberation Sans', 'DejaVu Sans Condensed', sans-serif\">",
        f"<title>{title}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
        text(8, 26, "Filled: the eighteen papers, with the number of the notebook. Outlined: ancestors and heirs.", 13, False, INK, "start"),
        text(8, 46, "Lines lead from an idea to those that build on it. Date: first version.", 13, False, INK, "start"),
        text(LEFT - 4, 100, "before", 11, True, INK, "end"),
    ]
    heads = list(years.items())
    for i, (year, y) in enumerate(heads):
        top, end = y - 25, heads[i + 1][1] - 25 if i + 1 < len(heads) else height - 8
        if i % 2 == 0:
            out.append(f'<rect x="0" y="{top}" width="{WIDTH}" height="{end - top}" fill="{BAND}"/>')
        out.append(text(LEFT - 4, y + 5, str(year), 13, True, INK, "end"))
    for lane, name, _, _, number, parents, *_ in by_date():
        for parent in filter(None, parents.split("|")):
            out.append(edge(at[parent], at[name], LANES[lanes[parent]][1], number and parent in ours, beside.get((parent, name))))
    for lane, (name, colour) in enumerate(LANES):
        words = text(LEFT + LANE * (lane + 0.5), 152, name, 13, True, colour)
        out.append(words.replace("<text", f'<text paint-order="stroke" stroke="{PAPER}" stroke-width="5"'))
    for _, name, _, under, *_ in ANCESTORS:
        out += box(*at[name], SHORT.get(name, name), under, "#5b6675", False)
    for lane, name, month, _, number, *_ in by_date():
        label = SHORT.get(name, name)
        label = f"{number:02d} {label}" if number else label
        out += box(*at[name], label, month, LANES[lane][1], bool(number))
    return "\n".join([*out, "</svg>", ""])


def listed():
    """The list of timeline.md: a heading for each year, a line for each work."""
    out = ["## Before 2015", ""]
    for _, name, year, _, key, gave in sorted(ANCESTORS, key=lambda a: a[2]):
        out.append(f"- {year}: {name} {{cite}}`{key}`: {gave}.")
    now = None
    for _, name, month, venue, number, parents, key, gave in by_date():
        if month[:4] != now:
            now = month[:4]
            out += ["", f"## {now}", ""]
        if name == "CFG":
            venue = "NeurIPS workshop 2021, arXiv 2022-07"
        what = f"**{name}** {{cite}}`{key}`, {venue}, {{place}}`notebook {number:02d} <{NOTEBOOKS[number]}>`" if number else f"{name} {{cite}}`{key}`, {venue}"
        builds = f" *Builds on {parents.replace('|', ', ')}.*" if parents else ""
        out.append(f"- {month}: {what}: {gave}.{builds}")
    return "\n".join(out)


if __name__ == "__main__":
    if "--list" in sys.argv:
        print(listed())
    else:
        Path(__file__).with_name("timeline.svg").write_text(draw(), encoding="utf-8")
