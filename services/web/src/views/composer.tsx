import { type SubmitEvent, useRef, useState } from 'react'
import type { Post } from '../api/types'
import { fieldSentence } from '../api/sentences'
import { BusyButton } from '../components/busy-button'
import { ErrorNotice } from '../components/error-notice'
import { TextArea, TextField } from '../components/field'
import { useAction } from '../hooks/action'
import { useInvalidField } from '../hooks/invalid-field'
import { useServices } from '../hooks/services'
import { CONTENT_MAX, TITLE_MAX } from '../rules'

/** What is being written and by whom: a session that ends meanwhile, or a look at another view, does not take it away. */
let draft = { userId: '', title: '', content: '' }

/** Where posts are written. What was written stays until the server has it. */
export function Composer({ userId, done }: { userId: string; done: (post: Post) => void }) {
  const { api } = useServices()
  const action = useAction()
  const [form, showInvalid] = useInvalidField()
  const mine = draft.userId === userId
  const [title, setTitle] = useState(mine ? draft.title : '')
  const [content, setContent] = useState(mine ? draft.content : '')
  const [checked, setChecked] = useState(false)
  // One key per draft: sending it again after a lost answer does not publish it twice.
  const key = useRef<string | null>(null)

  const write = (what: { title: string } | { content: string }) => {
    draft = { userId, title, content, ...what }
    setTitle(draft.title)
    setContent(draft.content)
    key.current = null
    setChecked(false)
    action.clear()
  }
  const publish = async () => {
    key.current ??= crypto.randomUUID()
    const post = await api.createPost({ title: title.trim(), content: content.trim() }, key.current)
    key.current = null
    setTitle('')
    setContent('')
    draft = { userId, title: '', content: '' }
    setChecked(false)
    done(post)
  }
  const submit = async (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault()
    setChecked(true)
    if (title.trim() === '' || content.trim() === '' || !(await action.run(publish))) showInvalid()
  }

  const missing = (value: string, sentence: string) => (checked && value.trim() === '' ? sentence : undefined)
  const left = CONTENT_MAX - content.length
  return (
    <form ref={form} className="card composer" noValidate aria-label="New post" onSubmit={(event) => void submit(event)}>
      <TextField
        label="Title"
        name="title"
        value={title}
        change={(value) => write({ title: value })}
        maxLength={TITLE_MAX}
        autoComplete="off"
        error={missing(title, 'Please give it a title.') ?? fieldSentence(action.error, 'title')}
      />
      <TextArea
        label="Text"
        name="content"
        value={content}
        change={(value) => write({ content: value })}
        maxLength={CONTENT_MAX}
        rows={4}
        hint={left < 1000 ? `${left} characters left` : undefined}
        error={missing(content, 'Please write something.') ?? fieldSentence(action.error, 'content')}
      />
      {(action.error === undefined || fieldSentence(action.error, 'title') === undefined) && <ErrorNotice error={action.error} />}
      <BusyButton type="submit" className="primary" busy={action.running}>
        {action.running ? 'Publishing…' : 'Publish'}
      </BusyButton>
    </form>
  )
}
