// Without this script the pages are complete. It opens what an address points into, stops pictures that move, and lets the
// keyboard reach what scrolls.
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  function unfold(element) {
    for (let fold = element.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  }

  function openTarget() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target || !target.closest("details")) return;
    unfold(target);
    target.scrollIntoView({behavior: "instant"}); // it may be far below
  }

  function addUnfold() { // on pages with folds: one button for all of them
    const folds = all("article details"), title = document.querySelector("article h1");
    if (folds.length < 2 || !title) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "unfold";
    const say = () => (button.textContent = folds.every((fold) => fold.open) ? "Fold everything" : "Unfold everything");
    button.addEventListener("click", () => {
      const open = !folds.every((fold) => fold.open);
      folds.forEach((fold) => (fold.open = open));
      say();
    });
    say();
    title.after(button);
  }

  function addStop(picture) { // what moves by itself for long must be stoppable
    const image = picture.querySelector("img"), source = picture.querySelector("source");
    const moving = image.getAttribute("src"), still = source.getAttribute("srcset");
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "stop";
    button.textContent = "Stop";
    button.addEventListener("click", () => {
      const moves = image.getAttribute("src") === moving;
      image.src = moves ? still : moving;
      button.textContent = moves ? "Play" : "Stop";
    });
    picture.append(button);
  }

  function reachScrollers() {
    for (const box of all("article pre, article .formula, article .table-wrapper")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    opened.forEach((fold) => (fold.open = true));
  });
  addEventListener("afterprint", () => opened.forEach((fold) => (fold.open = false)));
  addEventListener("hashchange", openTarget);
  addEventListener("load", openTarget); // again: pictures above it have moved it
  addEventListener("resize", reachScrollers);
  document.addEventListener("toggle", reachScrollers, true);

  for (const caption of all('[role="heading"]:not([aria-level])')) caption.setAttribute("aria-level", "2");
  for (const work of all('[role="doc-biblioentry"]')) work.setAttribute("role", "listitem"); // it stands in a list
  all("picture.moving").forEach(addStop);
  addUnfold();
  openTarget();
  document.fonts.ready.then(reachScrollers);
})();
