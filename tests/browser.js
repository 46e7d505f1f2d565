// What is wrong with the page, in lines. Folds are opened, so that what they hide is looked at as well.
(async () => {
  document.querySelectorAll("details").forEach((fold) => (fold.open = true));
  await document.fonts.ready;
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
  return found;
})()
