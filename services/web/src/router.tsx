/** Addresses of this page, by the browser's own history. */

import { type ComponentProps, type MouseEvent, useSyncExternalStore } from 'react'

const CHANGED = 'slipway:navigated'
let moved = false

function subscribe(listener: () => void): () => void {
  addEventListener('popstate', listener)
  addEventListener(CHANGED, listener)
  return () => {
    removeEventListener('popstate', listener)
    removeEventListener(CHANGED, listener)
  }
}

addEventListener('popstate', () => {
  moved = true
})

export function usePath(): string {
  return useSyncExternalStore(subscribe, () => location.pathname)
}

export function navigate(path: string): void {
  moved = true
  if (path !== location.pathname) history.pushState(null, '', path)
  scrollTo(0, 0)
  dispatchEvent(new Event(CHANGED))
}

/** Whether the view at hand is one that the user went to, rather than the one that the browser loaded. */
export function hasMoved(): boolean {
  return moved
}

/** A link inside of the page; a click that asks for a new tab or window is left to the browser. */
export function Link({ href, onClick, children, ...rest }: ComponentProps<'a'> & { href: string }) {
  const follow = (event: MouseEvent<HTMLAnchorElement>) => {
    onClick?.(event)
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
    event.preventDefault()
    navigate(href)
  }
  return (
    <a href={href} onClick={follow} {...rest}>
      {children}
    </a>
  )
}
