customElements.define('demo-poll', class extends HTMLElement {
  connectedCallback() {
    const tree = this.attachShadow({mode: 'open'});
    tree.innerHTML = '<style>button, a { font: inherit; margin-right: 1rem; color: inherit } ' +
      'button { background: none; border: 1px solid currentColor; border-radius: 8px; padding: .3rem .7rem }</style>' +
      '<button id="vote" type="button">Vote</button><a id="results" href="../long/"><b id="results-text">Results</b></a>';
  }
});
for (const [id, text, path] of [['late-home', 'The first page', '../'], ['late-long', 'The long page', '../long/']]) {
  const item = document.createElement('li');
  const link = Object.assign(document.createElement('a'), {id, href: path, textContent: text});
  item.append(link);
  document.getElementById('late').append(item);
}
document.getElementById('heart').addEventListener('click', (event) => event.currentTarget.classList.toggle('on'));
