// The theme: the system's, or the reader's choice, kept where the browser lets a file keep anything.
const theme = document.getElementById("theme");
const remembered = (() => {
  try {
    return localStorage.getItem("jlebm-theme") ?? "";
  } catch {
    return "";
  }
})();
function dress(name) {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
}
theme.value = remembered;
dress(remembered);
theme.addEventListener("change", () => {
  dress(theme.value);
  try {
    localStorage.setItem("jlebm-theme", theme.value);
  } catch {
    // It lasts as long as the page.
  }
});
document.documentElement.dataset.ready = "yes";
