/** Which keys the list shows. */
import { useState } from "preact/hooks";
import { Button, Field, onSubmit } from "./basics.tsx";

/** The filters of `ListKeys`; empty ones admit all. */
export interface KeyFilter {
  nameContains?: string;
  externalId?: string;
  metadataFilter?: string[];
}

type By = "name" | "external id" | "metadata";

const HINTS: Readonly<Record<By, string>> = {
  name: "A part of the name",
  "external id": "The whole id",
  metadata: "name=value",
};

export function KeySearch({ onSearch }: { onSearch: (filter: KeyFilter) => void }) {
  const [by, setBy] = useState<By>("name");
  const [text, setText] = useState("");
  const search = (said: string) => {
    const wanted = said.trim();
    if (!wanted) onSearch({});
    else if (by === "name") onSearch({ nameContains: wanted });
    else if (by === "external id") onSearch({ externalId: wanted });
    else onSearch({ metadataFilter: [wanted] });
  };
  return (
    <form class="search" role="search" onSubmit={onSubmit(() => search(text))}>
      <Field label="Find by">
        {(attributes) => (
          <select {...attributes} value={by} onChange={(event) => setBy(event.currentTarget.value as By)}>
            {Object.keys(HINTS).map((name) => <option key={name} value={name}>{name}</option>)}
          </select>
        )}
      </Field>
      <Field label="What to find">
        {(attributes) => (
          <input
            {...attributes}
            type="search"
            autocomplete="off"
            maxLength={600}
            placeholder={HINTS[by]}
            value={text}
            onInput={(event) => {
              setText(event.currentTarget.value);
              if (!event.currentTarget.value) search("");
            }}
          />
        )}
      </Field>
      <Button submit>Find</Button>
    </form>
  );
}
