"use strict";
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, i) => {
    const text = row.cells[i].dataset.v;
    return text === undefined ? null : Number(text);
  };
  heads.forEach((head, i) => {
    head.firstElementChild.addEventListener("click", () => {
      // Numbers start with the largest; the first column starts with the order in which the page came.
      const before = head.getAttribute("aria-sort");
      const falling = before === "none" ? i > 0 : before === "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a, i), value(b, i)];
        if (x === null || y === null) return (x === null) - (y === null);
        return falling ? y - x : x - y;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    links.forEach((link) => link.removeAttribute("aria-current"));
    links.get(target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-15% 0px -75% 0px" });
document.querySelectorAll("main > section").forEach((part) => watcher.observe(part));
document.documentElement.dataset.ready = "true";
