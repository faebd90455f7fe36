import { useEffect, useReducer, useRef } from 'react'
import { isAbort } from '../api/problem'
import type { Image } from '../api/types'
import { useServices } from './services'

/** One file on its way. `sent` is a part of 1; at 1 the server has it all and works on it. */
export interface Upload {
  id: string
  file: File
  status: 'waiting' | 'sending' | 'failed'
  sent: number
  error?: unknown
}

export interface Uploads {
  list: Upload[]
  add: (files: Iterable<File>) => void
  retry: (id: string) => void
  /** Stops it if it runs, and takes it off the list. */
  remove: (id: string) => void
}

type Change =
  | { add: Upload[] }
  | { id: string; with: Partial<Upload> }
  | { remove: string }

/** Uploads at a time: more would only share the same connection. */
const AT_A_TIME = 2

function reduce(list: Upload[], change: Change): Upload[] {
  if ('add' in change) return [...list, ...change.add]
  if ('remove' in change) return list.filter(({ id }) => id !== change.remove)
  return list.map((upload) => (upload.id === change.id ? { ...upload, ...change.with } : upload))
}

/** Files on their way to the server, some at a time; `done` gets each that has arrived, which then leaves the list. */
export function useUploads(done: (image: Image, file: File) => void): Uploads {
  const { api } = useServices()
  const [list, change] = useReducer(reduce, [])
  const running = useRef(new Map<string, AbortController>())
  const finished = useRef(done)
  useEffect(() => {
    finished.current = done
  })

  useEffect(() => {
    const send = async ({ id, file }: Upload) => {
      const controller = new AbortController()
      running.current.set(id, controller)
      change({ id, with: { status: 'sending', sent: 0, error: undefined } })
      try {
        const image = await api.upload(file, (sent) => change({ id, with: { sent } }), controller.signal)
        change({ remove: id })
        finished.current(image, file)
      } catch (error) {
        if (!isAbort(error)) change({ id, with: { status: 'failed', error } })
      } finally {
        running.current.delete(id)
      }
    }
    const free = AT_A_TIME - running.current.size
    const waiting = list.filter(({ id, status }) => status === 'waiting' && !running.current.has(id))
    for (const upload of waiting.slice(0, Math.max(free, 0))) void send(upload)
  }, [api, list])

  useEffect(() => {
    const mine = running.current
    return () => {
      for (const controller of mine.values()) controller.abort()
    }
  }, [])

  return {
    list,
    add: (files) =>
      change({ add: Array.from(files, (file) => ({ id: crypto.randomUUID(), file, status: 'waiting' as const, sent: 0 })) }),
    retry: (id) => change({ id, with: { status: 'waiting', error: undefined } }),
    remove: (id) => {
      running.current.get(id)?.abort()
      change({ remove: id })
    },
  }
}
