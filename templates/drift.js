// Filters of drift.html. Without a script, everything is shown.
"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const fields = { status: get("filter-status"), host: get("filter-host"), concern: get("filter-concern") };
  const text = get("filter-text");
  const rows = Array.from(document.querySelectorAll(".row"), (element) => ({ element, words: null }));
  const apply = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const data = row.element.dataset;
      let fits = Object.entries(fields).every(([key, field]) => !field.value || data[key] === undefined || data[key] === field.value);
      if (fits && words.length) {
        row.words ??= row.element.textContent.toLowerCase();
        fits = words.every((word) => row.words.includes(word));
      }
      row.element.hidden = !fits;
      shown += fits && row.element.tagName === "TR";
    }
    get("filter-count").textContent = `${shown} of ${rows.filter((row) => row.element.tagName === "TR").length} differences`;
  };
  for (const field of Object.values(fields)) field.addEventListener("change", apply);
  text.addEventListener("input", apply);
  get("filter-clear").addEventListener("click", () => {
    for (const field of [...Object.values(fields), text]) field.value = "";
    apply();
  });
  get("filters").hidden = false;
  apply();
})();
