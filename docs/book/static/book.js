"use strict";

// What is too wide for the page can be scrolled with the keys, too: it becomes a stop of the tab key while it is.
addEventListener("DOMContentLoaded", () => {
  const watched = new ResizeObserver((entries) => entries.forEach(({ target }) => {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }));
  document.querySelectorAll("pre, .formula, .table-wrapper, .cell_output, .demo .wide").forEach((box) => watched.observe(box));
});
