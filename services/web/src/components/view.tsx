import { type ReactNode, useEffect, useRef } from 'react'
import { hasMoved } from '../router'

/** One page. Whoever went here by a link hears its title first: focus moves to it, as after a page load. */
export function View({ title, lead, children }: { title: string; lead?: ReactNode; children: ReactNode }) {
  const heading = useRef<HTMLHeadingElement>(null)
  useEffect(() => {
    document.title = `${title} · slipway`
  }, [title])
  useEffect(() => {
    if (hasMoved()) heading.current?.focus()
  }, [])
  return (
    <>
      <h1 ref={heading} tabIndex={-1}>
        {title}
      </h1>
      {lead !== undefined && <p className="lead">{lead}</p>}
      {children}
    </>
  )
}

/** For when what had the focus is about to go. No dialog may be open any more: it would keep the focus inside. */
export function focusHeading(): void {
  document.querySelector<HTMLElement>('main h1')?.focus()
}
