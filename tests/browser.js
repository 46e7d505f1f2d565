// What is wrong with the page, in lines. Folds are opened, so that what they hide is looked at as well.
(async () => {
  document.querySelectorAll("details").forEach((fold) => (fold.open = true));
  await document.fonts.ready;
  for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame); // the page answers a new width first
  await Promise.all([...document.images].map((image) => image.decode().catch(() => 0)));
  const found = [], root = document.documentElement, show = (e) => e.outerHTML.slice(0, 120);
  if (root.scrollWidth > innerWidth) {
    const beyond = (e) => e.getBoundingClientRect().right > innerWidth + 1;
    const wide = [...document.querySelectorAll("article *")].filter(beyond);
    const scrolls = (e) => e.closest(".formula, .table-wrapper, pre");
    const culprits = wide.filter((e) => !scrolls(e)).slice(0, 3).map(show);
    found.push(`overflows by ${root.scrollWidth - innerWidth}: ${culprits}`);
  }
  for (const image of document.images) if (!image.naturalWidth) found.push(`broken picture: ${show(image)}`);
  for (const box of document.querySelectorAll(".equation")) {
    const [formula, number] = [".formula", ".eqno"].map((part) => box.querySelector(part)?.getBoundingClientRect());
    if (number && formula.right > number.left + 0.5) found.push(`a number lies over its formula: ${show(box)}`);
  }
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const raw = /\\(frac|mathbb|mathcal|alpha|sigma|text|sum|int|left|begin|lVert)\b|\$\$|\$[^$\s][^$]*\$/;
  while (walk.nextNode()) {
    const at = walk.currentNode.parentElement;
    if (at.closest("code, pre, script, style, annotation")) continue;
    if (raw.test(walk.currentNode.data)) found.push(`raw TeX: ${walk.currentNode.data}`);
  }
  if (document.querySelector("merror")) found.push("a formula with an error");
  const drawn = [...document.fonts].some((font) => font.family.includes("STIX") && font.status === "loaded");
  if (document.querySelector("math") && !drawn) found.push("the font of the formulas is not there");

  // Contrast, as WCAG 2.1 AA counts it: 4.5, and 3 for large type.
  const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true}), known = new Map();
  const rgba = (colour) => {
    if (!known.has(colour)) {
      paint.clearRect(0, 0, 1, 1);
      paint.fillStyle = colour;
      paint.fillRect(0, 0, 1, 1);
      known.set(colour, [...paint.getImageData(0, 0, 1, 1).data].map((value) => value / 255));
    }
    return known.get(colour);
  };
  const over = (top, below) => top.slice(0, 3).map((value, i) => value * top[3] + below[i] * (1 - top[3]));
  const grounds = new Map([[document.documentElement.parentNode, [1, 1, 1]]]);
  const ground = (at) => {
    if (!grounds.has(at)) grounds.set(at, over(rgba(getComputedStyle(at).backgroundColor), ground(at.parentNode)));
    return grounds.get(at);
  };
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = (colour) => colour.map(linear).reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0.05);
  const faint = new Map(), texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const judged = new Set();
  while (texts.nextNode()) {
    const at = texts.currentNode.parentElement;
    if (judged.has(at) || !texts.currentNode.data.trim() || !at.checkVisibility() || at.closest("svg")) continue;
    judged.add(at);
    const style = getComputedStyle(at), size = parseFloat(style.fontSize), bold = style.fontWeight >= 700;
    const below = ground(at), shades = [light(over(rgba(style.color), below)), light(below)].sort((a, b) => b - a);
    if (shades[0] / shades[1] < (size >= 24 || (bold && size >= 18.66) ? 3 : 4.5))
      faint.set(`${style.color} on ${below.map((value) => Math.round(value * 255))}`, show(at));
  }
  for (const [colours, at] of faint) found.push(`faint text, ${colours}: ${at}`);
  return found;
})()
