import type { ComponentProps } from 'react'

/** A button whose work takes a moment. It keeps the focus meanwhile: a disabled one would lose it. */
export function BusyButton({ busy, children, onClick, ...button }: ComponentProps<'button'> & { busy: boolean }) {
  return (
    <button
      {...button}
      aria-disabled={busy}
      aria-busy={busy}
      onClick={(event) => {
        if (busy) event.preventDefault()
        else onClick?.(event)
      }}
    >
      {children}
    </button>
  )
}
