import { type ReactNode, useId, useLayoutEffect, useRef } from 'react'

interface Props {
  title: string
  close: () => void
  className?: string
  children: ReactNode
}

/** A modal dialog, open as long as it is rendered. Focus stays inside, Escape closes, focus goes back to the opener. */
export function Dialog({ title, close, className = '', children }: Props) {
  const dialog = useRef<HTMLDialogElement>(null)
  const id = useId()
  useLayoutEffect(() => {
    const element = dialog.current
    element?.showModal()
    return () => element?.close()
  }, [])
  return (
    <dialog
      ref={dialog}
      className={className}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault()
        close()
      }}
    >
      <h2 id={id}>{title}</h2>
      {children}
    </dialog>
  )
}
