// Runs before the first paint, so that no light page flashes by at night.
(() => {
  const root = document.documentElement;
  const night = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {
    // A browser that keeps nothing still shows the page.
  }
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : night.matches);
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;

  addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("#theme");
    const name = () => {
      button.textContent = isDark() ? "Light" : "Dark";
    };
    name();
    night.addEventListener("change", name);
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try {
        localStorage.setItem("theme", root.dataset.theme);
      } catch {
        // As above.
      }
      name();
    });
  });
})();
