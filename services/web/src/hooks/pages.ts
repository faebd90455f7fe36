import { useCallback, useEffect, useRef, useState } from 'react'
import { isAbort } from '../api/problem'
import type { Page } from '../api/types'

interface State<T> {
  items: T[]
  next: string | null
  loading: boolean
  error: unknown
}

export interface Pages<T> extends State<T> {
  /** The next page; after a failure the one that failed. */
  more: () => void
  /** From the first page on. */
  reload: () => void
  prepend: (item: T) => void
  remove: (item: T) => void
}

type Load<T> = (cursor: string | null, signal: AbortSignal) => Promise<Page<T>>

/** A list that is read page by page. `load` has to stay the same function from render to render. */
export function usePages<T>(load: Load<T>, keyOf: (item: T) => string): Pages<T> {
  const [state, setState] = useState<State<T>>({ items: [], next: null, loading: true, error: undefined })
  const running = useRef<AbortController | null>(null)

  const read = useCallback(
    async (cursor: string | null) => {
      running.current?.abort()
      const controller = new AbortController()
      running.current = controller
      try {
        const page = await load(cursor, controller.signal)
        setState(({ items }) => {
          // An item that was added here meanwhile may come again from the server.
          const known = new Set(cursor === null ? [] : items.map(keyOf))
          const fresh = page.items.filter((item) => !known.has(keyOf(item)))
          return { items: cursor === null ? fresh : [...items, ...fresh], next: page.next_cursor, loading: false, error: undefined }
        })
      } catch (error) {
        if (!isAbort(error)) setState((before) => ({ ...before, loading: false, error }))
      }
    },
    [load, keyOf],
  )

  useEffect(() => {
    void read(null)
    return () => running.current?.abort()
  }, [read])

  const begin = (cursor: string | null) => {
    setState((before) => ({ ...before, loading: true, error: undefined }))
    void read(cursor)
  }
  return {
    ...state,
    more: () => begin(state.next),
    reload: () => begin(null),
    prepend: (item) => setState((before) => ({ ...before, items: [item, ...before.items] })),
    remove: (item) =>
      setState((before) => ({ ...before, items: before.items.filter((other) => keyOf(other) !== keyOf(item)) })),
  }
}
