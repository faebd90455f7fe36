// While a new version rolls out, the page may come from a new replica and its files be asked of an old one, which does
// not have them. A little later it is over: the page is loaded again, some times at most.
addEventListener(
  'error',
  ({ target }) => {
    if (!(target instanceof HTMLScriptElement || target instanceof HTMLLinkElement)) return
    const done = Number(sessionStorage.getItem('slipway.reloads'))
    if (done >= 10) return
    sessionStorage.setItem('slipway.reloads', String(done + 1))
    setTimeout(() => location.reload(), 1000 * (done + 1))
  },
  true,
)
