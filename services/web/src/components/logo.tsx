/** A hull on a slipway. */
export function Logo() {
  return (
    <svg className="logo" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <path className="logo-slope" d="M4 25 28 17v3.2L4 28.2z" />
      <path className="logo-hull" d="m7 20 2.2-6.4 4.3 1.2 1-6.3 3.2.8-.6 4.6 8-2.4-2.6 6z" />
    </svg>
  )
}
