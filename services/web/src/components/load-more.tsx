import { type RefObject, useEffect, useRef } from 'react'
import type { Pages } from '../hooks/pages'
import { BusyButton } from './busy-button'
import { ErrorNotice } from './error-notice'

interface Props<T> {
  pages: Pages<T>
  /** What the list holds, for the line that says that it is loading. */
  what: string
  list: RefObject<HTMLUListElement | null>
}

/** The end of a list: more of it, what went wrong, or nothing. */
export function LoadMore<T>({ pages, what, list }: Props<T>) {
  const { items, next, loading, error } = pages
  const asked = useRef<number | null>(null)
  useEffect(() => {
    // Who asked for more goes on reading there, and not behind it.
    if (asked.current === null || items.length <= asked.current) return
    list.current?.children[asked.current]?.querySelector<HTMLElement>('a, button')?.focus()
    asked.current = null
  }, [items.length, list])

  if (error !== undefined) return <ErrorNotice error={error} retry={items.length > 0 ? pages.more : pages.reload} />
  if (loading && items.length === 0) {
    return (
      <p className="loading" role="status">
        Loading {what}…
      </p>
    )
  }
  if (next === null) return null
  const more = () => {
    asked.current = items.length
    pages.more()
  }
  return (
    <BusyButton type="button" className="quiet wide" busy={loading} onClick={more}>
      {loading ? 'Loading…' : 'Load more'}
    </BusyButton>
  )
}
