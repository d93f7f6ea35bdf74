"use strict";
(() => {
  const gallery = document.getElementById("gallery");
  const items = [...gallery.children];
  const controls = document.getElementById("controls");
  const sort = document.getElementById("sort");
  const direction = document.getElementById("direction");
  const search = document.getElementById("search");
  const count = document.getElementById("count");
  const dialog = document.getElementById("detail");
  let descending = true;
  let shown = items;
  let current = null;
  controls.hidden = false;

  const number = (item, key) => (key in item.dataset ? Number(item.dataset[key]) : NaN);

  function passes(item) {
    for (const input of controls.querySelectorAll("input[data-key]")) {
      if (input.value === "") continue;
      const value = number(item, input.dataset.key);
      const limit = Number(input.value);
      // A galaxy without the value is in no range of it.
      if (!(input.dataset.end === "low" ? value >= limit : value <= limit)) return false;
    }
    for (const choice of controls.querySelectorAll("select[data-key]")) {
      if (choice.value && item.dataset[choice.dataset.key] !== choice.value) return false;
    }
    return item.dataset.name.toLowerCase().includes(search.value.trim().toLowerCase());
  }

  function compare(a, b) {
    const sign = descending ? -1 : 1;
    if (sort.value === "name") {
      return sign * a.dataset.name.localeCompare(b.dataset.name, undefined, { numeric: true });
    }
    const x = number(a, sort.value), y = number(b, sort.value);
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return sign * (x - y);
  }

  function update() {
    shown = items.filter(passes).sort(compare);
    const visible = new Set(shown);
    for (const item of items) item.hidden = !visible.has(item);
    gallery.append(...shown);
    count.textContent = `${shown.length} of ${items.length} shown`;
  }

  function show(item) {
    current = item;
    document.getElementById("detail-title").textContent = item.dataset.name;
    document.getElementById("about").replaceChildren(item.querySelector("template").content.cloneNode(true));
    const place = shown.indexOf(item);
    // Not disabled: that would take the focus away from under the keyboard.
    document.getElementById("previous").setAttribute("aria-disabled", String(place <= 0));
    document.getElementById("next").setAttribute("aria-disabled", String(place >= shown.length - 1));
    if (!dialog.open) dialog.showModal();
  }

  function step(by) {
    const place = shown.indexOf(current) + by;
    if (place >= 0 && place < shown.length) show(shown[place]);
  }

  gallery.addEventListener("click", (event) => {
    const item = event.target.closest("li");
    if (item) show(item);
  });
  document.addEventListener("keydown", (event) => {
    if (!dialog.open) return;
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else return;
    event.preventDefault();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => current?.querySelector("button").focus());
  document.getElementById("close").addEventListener("click", () => dialog.close());
  document.getElementById("previous").addEventListener("click", () => step(-1));
  document.getElementById("next").addEventListener("click", () => step(1));
  direction.addEventListener("click", () => {
    descending = !descending;
    direction.textContent = descending ? "high to low" : "low to high";
    direction.setAttribute("aria-pressed", String(!descending));
    update();
  });
  controls.addEventListener("input", update);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("reset", () => setTimeout(update));
  update();
})();
