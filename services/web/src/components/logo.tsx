/** A boat on a slipway. */
export function Logo() {
  return (
    <svg className="logo" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <path className="logo-slope" d="M3 26.4 29 18.9v2.6L3 29z" />
      <path className="logo-boat" d="M7 17.5 26 12l-4 7.6L11.4 22.6zM16.2 3 17 12.6 8.2 15.2zM18.4 5.6l5.4 5.3-4.9 1.4z" />
    </svg>
  )
}
