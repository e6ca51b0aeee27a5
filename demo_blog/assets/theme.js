// Remembered for the tab only: the demo blog keeps nothing longer.
const root = document.documentElement;
const prefersDark = matchMedia('(prefers-color-scheme: dark)').matches;
let isDark = prefersDark;
try { isDark = (sessionStorage.theme || (prefersDark ? 'dark' : 'light')) === 'dark'; } catch (forbidden) { /* keep the system's */ }
const apply = () => { root.dataset.theme = isDark ? 'dark' : 'light'; };
apply();
document.getElementById('theme').addEventListener('click', (event) => {
  isDark = !isDark;
  apply();
  try { sessionStorage.theme = root.dataset.theme; } catch (forbidden) { /* for this page only */ }
  event.stopPropagation(); // as careless widgets do: a tracker that listens on the way up never hears of it
});
